"""The errors of the gateway, one family for both languages.

Raised by the native core (which imports this module) and by the Python shell around it. The names
say what happened (a snapshot was rejected), hence no suffix.
"""


class GatewayError(Exception):
    """Any failure of the gateway that a caller may want to catch."""


class SnapshotRejected(GatewayError):  # noqa: N818
    """An update of the configuration is wrong; nothing of it was taken.

    ``path`` is the place in the update (``clusters[3].outlier.max_ejection_percent``), ``message``
    what is wrong there.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class GaveUp(GatewayError):  # noqa: N818
    """The core met so many bugs that it drained itself; a fresh process is wanted."""


class CoreClosed(GatewayError):  # noqa: N818
    """The core was not started, drains, or was stopped."""


class SettingsRejected(GatewayError):  # noqa: N818
    """The core cannot be made with these settings."""

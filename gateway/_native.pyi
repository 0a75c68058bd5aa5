# ruff: noqa: PYI021, A002 - the stub is the reference of this module, and its names are the binary's
"""The native core: moves every byte of traffic; Python configures and watches it.

All methods may be called from any thread and release the interpreter lock while they wait.
"""

from typing import final

__all__ = ["SOURCE_DIGEST", "Core"]

SOURCE_DIGEST: str
"""SHA-256 over the Rust sources that this module was built from, in hexadecimal digits."""

@final
class Core:
    """The data plane of one process: made, started once, drained, stopped."""

    def __new__(cls, settings: bytes) -> Core:
        """Make a core from settings, a JSON object; absent fields take their defaults.

        Raise ``SettingsRejected`` when a field is unknown or out of its range.
        """

    def start(self) -> None:
        """Start the worker threads (after any fork).

        Raise ``CoreClosed`` when it was stopped, ``GatewayError`` when the system gives no thread.
        """

    def apply(self, update: bytes) -> bytes:
        """Take an update (JSON) and return once all workers have it.

        The reply is ``{"version": str, "pause_us": int, "listeners": [{"name", "address", "error":
        null | str}]}``; the pause is the longest time that a worker moved no traffic for it.
        Raise ``SnapshotRejected`` when the update is wrong, ``CoreClosed`` when the core does not
        run.
        """

    def set_health(self, cluster: str, address: str, healthy: bool) -> None:
        """Tell the result of an active health check; unknown endpoints are ignored.

        Raise ``ValueError`` when the address is none.
        """

    def take_limit_demand(self, keys_max: int, all: bool) -> bytes:
        """Take what was asked of global rate limits, a JSON list.

        An entry is ``{"name", "requests", "has_share", "passed", "refused", "keys": [[key, passed,
        refused], ...]}``: the limit, whether a share was set, its totals, and for each key what
        came since the last call, most first, at most ``keys_max`` keys. With ``all`` also
        ``"outstanding": [[key or "", calls], ...]``, what passed and counts still.
        """

    def set_limit_shares(self, shares: bytes) -> None:
        """Set this gateway's shares of global rate limits, a JSON list.

        An entry is ``{"limit", "share_per_million", "keys": {key: share_per_million}}``; without a
        share those in force are confirmed. Limits that are not there are passed over. Raise
        ``ValueError`` when it is not of this form.
        """

    def set_known_methods(self, methods: bytes) -> None:
        """Name methods beside those that routes name, a JSON list in place of the one before.

        An entry is ``{"service", "method", "type"}``, the type ``unary``, ``client_stream``,
        ``server_stream``, ``bidi_stream`` or absent. The first 4096 have labels of their own in
        metrics. Raise ``ValueError`` when it is not of this form.
        """

    def take_telemetry(self, max_bytes: int) -> list[tuple[str, str, int, bytes]]:
        """Take spans and log records that wait, as (collector, kind, items, message).

        The kind is ``traces`` or ``logs``; the message is a serialized OpenTelemetry ``ScopeSpans``
        or ``ScopeLogs`` with its records alone, at most ``max_bytes`` (one batch at least). What
        nobody takes is bounded: the oldest goes, see ``telemetry`` in ``stats``.
        """

    def reopen_logs(self) -> None:
        """Have files of access logs opened again, after they were moved away."""

    def set_tap(self, filter: bytes | None) -> None:
        """Show live calls, or no more.

        The filter is a JSON object; conditions that are given must all hold: ``route`` (or rule),
        ``to_cluster``, ``code`` (name or number), ``header`` (``[name, value]``), ``method``.
        ``calls_per_s_max`` (1 to 10,000, default 100) bounds what is shown; beyond it calls are
        drawn evenly. A tap that nobody takes from for 30 s is over. Raise ``ValueError`` when it
        is not of this form, or the header is one of those that are never told.
        """

    def take_tap(self, max: int) -> bytes:
        """Take up to ``max`` tapped calls, oldest first: a JSON object a line.

        Its keys are the fields of an access log in lower case, and ``sampled_per_million``. At
        most 1024 lines wait; lost ones count in ``tap`` of ``stats``.
        """

    def drain(self, grace_ms: int) -> None:
        """Ask clients to leave, and return at once.

        What is left after the grace ends with UNAVAILABLE.
        """

    def drained(self) -> bool:
        """Tell whether a drain was asked for and no client connection is left."""

    def stop(self) -> None:
        """End all connections at once and join the worker threads."""

    def stats(self) -> bytes:
        """Return all counters and the state of every endpoint as JSON."""

    def loads(self) -> bytes:
        """Return the tries by where they go as JSON.

        ``{"calls_open", "connections", "latency_bounds_us": [...], "places": [{"cluster",
        "cluster_id", "region", "priority", "began", "succeeded", "failed", "open", "latency":
        [...]}]}``: a place is a cluster of the configuration at one member cluster (empty: no
        endpoint was there to try) and priority. All but what is open are totals; latencies are
        from the beginning of the call.
        """

    def events(self, max: int) -> bytes:
        """Take up to ``max`` events as a JSON list, oldest first."""

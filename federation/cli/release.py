"""The version of this program, as its package says it.

Decides: what is told where the package is not installed.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Such as ``0.1.0``; ``unknown`` where nothing is installed."""
    try:
        return version("grpc-federation")
    except PackageNotFoundError:
        return "unknown"

"""``python -m federation.cli``: the same as ``fedctl``."""

from __future__ import annotations

from federation.cli.main import main

main()

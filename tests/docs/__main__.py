"""Renew what is made: ``python -m tests.docs``."""

from __future__ import annotations

from tests.docs.made import made


def main() -> None:
    """Write all of it."""
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()

"""``python -m gateway``: run one gateway."""

import typer

from gateway.command import EXAMPLE, run_gateway


def main() -> None:
    """Parse the command line and run."""
    application = typer.Typer(add_completion=False)
    application.command(epilog=f"Example: python -m gateway {EXAMPLE}")(run_gateway)
    application()


if __name__ == "__main__":
    main()

"""docs/fedctl.md names every command and every option, as they are now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.cli.main import COMMANDS
from federation.cli.reference import command, page

PAGE = Path(__file__).parents[2] / "docs" / "fedctl.md"
RENEW = "renew it: python -m federation.cli.reference > docs/fedctl.md"


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^##+ (fedctl [^\n]+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_stands_in_the_docs_with_its_options(name: str) -> None:
    written = sections(PAGE.read_text(encoding="utf-8"))
    entry = COMMANDS[name]
    found = command(name, entry)
    inner = found.commands.items() if entry.group else [("", found)]
    for below, each in inner:
        title = f"fedctl {name} {below}".strip()
        assert title in written, f"docs/fedctl.md lacks {title}; {RENEW}"
        for parameter in each.params:
            longest = max([*parameter.opts, *parameter.secondary_opts], key=len)
            if longest.startswith("-"):
                assert f"`{longest}`" in written[title], f"{title} lacks {longest}; {RENEW}"


def test_the_page_is_made_from_the_commands() -> None:
    assert set(sections(PAGE.read_text(encoding="utf-8"))) == set(sections(page())), RENEW


@pytest.mark.parametrize("name", [n for n, e in COMMANDS.items() if not e.group])
def test_each_command_shows_an_example_or_says_what_it_does(name: str) -> None:
    found = command(name, COMMANDS[name])
    assert found.help

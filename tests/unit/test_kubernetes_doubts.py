"""What is believed of an API server that went back."""

from __future__ import annotations

from dataclasses import dataclass

from federation.adapters.kubernetes.doubts import Doubts, is_older
from federation.model.objects import ObjectKey


@dataclass(frozen=True)
class Entry:
    version: str


def key(name: str) -> ObjectKey:
    return ObjectKey("", "Service", "app", name)


def entries(**versions: str) -> dict[ObjectKey, Entry]:
    return {key(name): Entry(version) for name, version in versions.items()}


KNOWN = entries(kept="10", changed="40", made="50")


def doubts_after(found: dict[ObjectKey, Entry], *, now: str) -> Doubts:
    return Doubts().after_list(KNOWN, found, before="60", now=now)


def test_a_list_at_a_newer_version_is_believed() -> None:
    assert doubts_after(entries(kept="10"), now="61") == Doubts()
    assert doubts_after(entries(kept="10"), now="60") == Doubts()


def test_what_an_older_list_lacks_or_has_older_is_doubted() -> None:
    found = doubts_after(entries(kept="10", changed="20"), now="30")
    assert dict(found.said) == {key("changed"): Entry("20"), key("made"): None}
    assert "went back from version 60 to 30" in found.reason
    assert "1 objects that it lacks and 1 that it has in older versions" in found.reason
    settled = found.settled(KNOWN)
    assert settled == entries(kept="10", changed="20")


def test_an_older_list_that_says_the_same_is_no_matter() -> None:
    assert doubts_after(KNOWN, now="55") == Doubts()


def test_each_object_is_doubted_until_it_is_written_there() -> None:
    found = doubts_after(entries(kept="10", changed="20"), now="30")
    again = found.after_list(KNOWN, entries(kept="10", changed="20"), before="30", now="35")
    assert again == found
    written = entries(kept="10", changed="36")
    once = again.after_list(KNOWN, written, before="35", now="36")
    assert dict(once.said) == {key("made"): None}
    assert once.without(key("made")) == Doubts()


def test_versions_that_are_no_numbers_are_never_older() -> None:
    assert is_older("9", "10")
    assert not is_older("10", "9")
    assert not is_older("a", "b")
    assert not is_older("", "10")

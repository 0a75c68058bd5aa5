"""Units are made again when what they asked for has changed, and not before."""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.incremental import Change, Single, Table, Units


class Prices:
    """A derivation: the price of each basket, from a table of prices."""

    def __init__(self) -> None:
        self.units: Units[str, tuple[str, ...], int] = Units()
        self.rows: Mapping[str, int] = {}
        self.made: list[tuple[str, ...]] = []

    def update(
        self, rows: Mapping[str, int], baskets: Mapping[str, tuple[str, ...]]
    ) -> Mapping[str, int]:
        change = Change()
        table = change.table("prices", self.rows, rows)
        self.rows, self.made = rows, []
        return self.units.update(change, baskets, lambda names: self._price(table, names))

    def _price(self, table: Table[str, int], names: tuple[str, ...]) -> int:
        self.made.append(names)
        return sum(table.get(name, 0) for name in names)


BASKETS = {"one": ("tea",), "two": ("tea", "milk"), "three": ("bread",)}
ROWS = {"tea": 3, "milk": 1, "bread": 2}


def test_a_unit_is_made_again_for_a_row_that_it_asked_for() -> None:
    prices = Prices()
    assert prices.update(ROWS, BASKETS) == {"one": 3, "two": 4, "three": 2}
    assert prices.update({**ROWS, "milk": 5}, BASKETS) == {"one": 3, "two": 8, "three": 2}
    assert prices.made == [("tea", "milk")]
    assert prices.units.made == 1


def test_a_row_that_was_missing_is_noticed_when_it_comes() -> None:
    prices = Prices()
    assert prices.update({"tea": 3}, BASKETS)["three"] == 0
    assert prices.update({"tea": 3, "bread": 2}, BASKETS)["three"] == 2
    assert prices.update({"tea": 3}, BASKETS)["three"] == 0


def test_other_arguments_make_a_unit_anew_and_what_is_not_wanted_is_forgotten() -> None:
    prices = Prices()
    prices.update(ROWS, BASKETS)
    found = prices.update(ROWS, {"one": ("bread",), "two": ("tea", "milk")})
    assert found == {"one": 2, "two": 4}
    assert prices.made == [("bread",)]
    prices.update(ROWS, BASKETS)
    assert prices.made == [("tea",), ("bread",)]


def test_results_that_are_as_before_stay_the_same_object() -> None:
    prices = Prices()
    first = prices.update(ROWS, BASKETS)
    assert prices.update({**ROWS, "tea": 2, "milk": 2}, {"two": BASKETS["two"]}) == {"two": 4}
    first = prices.update(ROWS, BASKETS)
    assert prices.update({**ROWS, "salt": 9}, BASKETS) is first
    assert prices.made == []
    assert prices.update(dict(ROWS), dict(BASKETS)) is first


def test_presence_is_a_question_of_its_own() -> None:
    asked: list[bool] = []
    single: Single[bool] = Single()
    rows: Mapping[str, int] = {"tea": 1}

    def update(new: Mapping[str, int]) -> bool:
        nonlocal rows
        change = Change()
        table = change.table("rows", rows, new)
        rows = new

        def look() -> bool:
            asked.append(True)
            return "tea" in table

        return single.update(change, (), look)

    assert update({"tea": 1})
    assert update({"tea": 2})
    assert len(asked) == 1
    assert not update({})
    assert len(asked) == 2


def test_whoever_looks_at_everything_is_made_again_for_anything() -> None:
    single: Single[int] = Single()
    change = Change()
    assert single.update(change, (), lambda: len(change.table("rows", {}, ROWS))) == 3
    later = Change()
    table = later.table("rows", ROWS, {**ROWS, "milk": 2})
    assert single.update(later, (), lambda: sum(table.values())) == 7

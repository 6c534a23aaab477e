"""Which reason ends a pod."""

import re
from itertools import combinations
from pathlib import Path

from comfy_gateway.core.life.ending_reasons import ENDINGS, Why, table, winner

PAGE = Path(__file__).parents[3] / "docs/money.md"


def test_the_first_reason_of_the_table_wins_over_all_later_ones() -> None:
    assert list(ENDINGS) == list(Why)
    for first, later in combinations(Why, 2):
        assert winner({later: "later", first: "first"}) == (first, "first")
    assert winner({}) is None


def test_only_idleness_heeds_the_lease_and_nothing_that_costs_too_much_waits_for_work() -> None:
    assert [why for why, ending in ENDINGS.items() if ending.waits_for_lease] == [Why.IDLE]
    assert [why for why, ending in ENDINGS.items() if ending.waits_for_work] == [Why.SILENCE, Why.IDLE]
    assert all(ending.saves_files for ending in ENDINGS.values())


def test_the_page_shows_this_table() -> None:
    rows = re.findall(r"(?m)^\| (.+?) \|$", PAGE.read_text(encoding="utf-8"))
    cells = [tuple(cell.strip() for cell in row.split("|")) for row in rows]
    head = ("Reason", "waits for work", "waits for the lease", "is drained", "saves files")
    begin = cells.index(head) + 1
    assert cells[begin : begin + len(ENDINGS)] == table()

"""The table of images: rows as they were put in, however they travel, sorted, and cheap."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from engine.data.model import Status
from tests.console_model.kit import fix, image, image_id, operation, view
from tui.text.statuses import SHOWN, State
from tui.view.gather import Names, from_lines, to_lines, with_report
from tui.view.images import ImageOrder, ImageTable
from tui.view.query import parse

HOSTILE = "\x1b]0;x\x07\x1b[2J[red][/x]\t\u202eabc" + "Z" * 500 + "漢字"


def many(count: int) -> ImageTable:
    table = ImageTable()
    for number in range(count):
        table.add(
            image_id(number),
            f"web-{number:05d}",
            {
                "reason": "The best representation for what was asked", "rule": "", "facts": "", "strategy": "space",
                "busy": "", "verb": "copy", "host": f"host-{number % 7}", "stage_name": "seal", "ending": "",
                "remarks": "",
                "state": SHOWN.index(State.BROKEN if number % 100 == 0 else State.OPTIMIZED), "mutable": True,
                "size_bytes": number << 20, "used_bytes": number << 19, "dependants": 0, "stage": 3, "stages": 3,
                "percent": 100, "when": 1.7e9 + number, "lost": 0,
            },
        )  # fmt: skip
    return table


def test_a_row_has_what_was_put_in():
    """Every column of an image comes back in its row."""
    told = image(7, Status.BROKEN, operation=operation(percent=41), busy="copy by host b", lost=((0, 512), (4096, 512)))
    row = view([told], names={image_id(7): "web"}, dependants={image_id(7): 3}).images[0]
    assert (row.id, row.name, row.label, row.state) == (image_id(7), "web", "web", State.BROKEN)
    assert (row.verb, row.host, row.stage, row.stages, row.stage_name, row.percent) == (
        "copy", "host-b", 2, 3, "copy data", 41,
    )  # fmt: skip
    assert (row.lost, row.dependants, row.busy, row.usable) == (1024, 3, "copy by host b", False)


def test_an_image_without_a_name_is_called_by_its_id():
    """The first digits of the id stand in for a missing name, also for an image that is not there."""
    table = view([image(7)]).images
    assert table[0].label == table.label(image_id(7)) == image_id(7)[:8]
    assert table.label("f" * 32) == "ffffffff" and table.find("f" * 32) == -1 and table.get("f" * 32) is None


def test_a_removed_image_counts_as_removed_and_as_nothing_else():
    """DEL is no image status: it is not in the total, whatever the data are."""
    counts = view([image(1, Status.BROKEN, removed=True), image(2), image(3, hidden=True)]).counts
    assert (counts.broken, counts.optimized, counts.removed, counts.total) == (0, 1, 1, 1)


def test_hostile_text_is_harmless_in_every_column():
    """Escape sequences, tabs and bidirectional controls from the disk do not reach a row; wide characters do."""
    told = image(1, reason=HOSTILE, busy=HOSTILE, rule=HOSTILE, facts=(HOSTILE,))
    told = told._replace(operation=operation(HOSTILE, verb=HOSTILE, stage_name=HOSTILE, last_error=HOSTILE))
    seen = view([told], [fix(1, why=HOSTILE, waits_for=HOSTILE, rule=HOSTILE)])
    texts = [value for value in (*seen.images[0], *seen.fixes[0][:-1], *seen.operations) if isinstance(value, str)]
    assert all(text.isprintable() for text in texts)
    assert "漢字" in seen.images[0].reason and "[red]" in seen.images[0].reason


def test_a_view_travels_as_lines():
    """The lines that the scanning process writes give an equal view; cut short they give none."""
    seen = view([image(number) for number in range(1, 5)], [fix(1)], names={image_id(2): "x"})
    lines = list(to_lines(seen))
    again = from_lines(lines)
    assert again._replace(images=seen.images) == seen
    assert [again.images[index] for index in range(4)] == [seen.images[index] for index in range(4)]
    assert again.fixes[0].fix() == fix(1)
    with pytest.raises(Exception, match="not whole"):
        from_lines(lines[:-1])


def test_a_long_table_travels_in_parts():
    """Parts of a table give the same rows, and no part is large."""
    table, again = many(5000), ImageTable()
    for part in table.parts(1000):
        again.extend(json.loads(json.dumps(part)))
    assert len(again) == 5000 and all(table[index] == again[index] for index in range(0, 5000, 37))


@pytest.mark.parametrize(
    ("order", "first"),
    [(ImageOrder.STATE, 0), (ImageOrder.NAME, 0), (ImageOrder.SIZE, 199), (ImageOrder.WHEN, 199), (ImageOrder.ID, 0)],
)
def test_orders_and_their_reverse(order: ImageOrder, first: int):
    """Each order has its own first row; reversed it is the last."""
    table = many(200)
    assert table.select(order=order)[0] == first
    assert list(table.select(order=order, reverse=True)) == list(table.select(order=order))[::-1]


def test_what_needs_attention_comes_first():
    """Sorted by state: broken, unknown, degraded, removed, optimized."""
    states = [Status.OPTIMIZED, Status.DEGRADED, Status.UNKNOWN, Status.BROKEN]
    table = view([*(image(n, status) for n, status in enumerate(states)), image(9, removed=True)]).images
    assert [table.state(index).value for index in table.select()] == [
        "broken", "unknown", "degraded", "removed", "optimized",
    ]  # fmt: skip


def test_images_of_one_state_are_in_the_order_of_their_names():
    """Then of their ids, those without a name last, as the command lists them."""
    names = {image_id(1): "web", image_id(2): "app", image_id(3): "app"}
    table = view([image(number) for number in range(1, 5)], names=names).images
    assert [table.id(index) for index in table.select()] == [image_id(number) for number in (2, 3, 1, 4)]


@pytest.mark.slow
def test_100000_images_are_cheap():
    """100,000 images take under 60 MB, and a filter of them a tenth of a second (three on a busy machine)."""
    tracemalloc.start()
    table = many(100_000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 60 << 20
    table.select(order=ImageOrder.NAME)
    for text in ("web-099", "status:brk", "host:host-3 web", "/9{3}/"):
        started = time.process_time()
        assert table.select(parse(text), ImageOrder.NAME)
        assert time.process_time() - started < 0.3


def test_a_report_is_read_as_it_was_written():
    """A view made of a report twice is the same: names decide, not the order of calls."""
    seen = view([image(1)])
    assert with_report(seen, _report(), Names({}, {})).counts == seen.counts


def _report():
    from engine.data.model import RepositoryReport

    return RepositoryReport((image(1),), (), (), 200, 100)

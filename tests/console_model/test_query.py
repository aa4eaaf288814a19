"""The filter language: what passes, and that nothing typed is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.model import Status
from tests.console_model.kit import fix, image, image_id, operation, view
from tui.view.images import ImageOrder
from tui.view.query import parse
from tui.work.decisions import Decisions
from tui.work.triage import triage

VIEW = view(
    [
        image(1, Status.BROKEN, rule="B-COPY", operation=operation("host-b")),
        image(2, Status.DEGRADED, rule="O-FLAT", mutable=False),
        image(3),
        image(4, removed=True),
    ],
    [fix(1), fix(2, "optimize", status_before="degraded"), fix(4, "clean", status_before="removed")],
    names={image_id(1): "web-db", image_id(2): "Mail-Spool", image_id(3): "base [vda]"},
)


def images(text: str) -> list[int]:
    rows = VIEW.images.select(parse(text), ImageOrder.ID)
    return [int(VIEW.images.id(index), 16) for index in rows]


def fixes(text: str) -> list[str]:
    return [row.fix.type for row in triage(VIEW, Decisions(), parse(text)).rows]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", [1, 2, 3, 4]),
        ("web", [1]),
        ("MAIL", [2]),
        ("web b-copy", [1]),
        ("!web", [2, 3, 4]),
        ("status:brk", [1]),
        ("status:b,deg", [1, 2]),
        ("!status:opt", [1, 2, 4]),
        ("status:removed", [4]),
        ("type:snapshot", [2]),
        ("host:host-b", [1]),
        ("!host:b", [2, 3, 4]),
        ("rule:O-", [2]),
        ("name:spool", [2]),
        ("/^0+3 /", [3]),
        ("we+b", [1]),
        ('"base [vda]"', [3]),
        ("[vda]", [1, 2, 3, 4]),
        ("[vda", [3]),
    ],
)
def test_images_pass(text: str, wanted: list[int]):
    """Words, fields, negation, quotes and expressions choose exactly these images."""
    assert images(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("type:mend", ["mend"]),
        ("type:mend,clean", ["mend", "clean"]),
        ("!type:mend", ["optimize", "clean"]),
        ("status:deg", ["optimize"]),
        ("host:b", ["mend"]),
        ("pri:3", ["optimize"]),
        ("pri:P1", ["mend"]),
        ("web", ["mend"]),
        ("rule:O", ["optimize"]),
    ],
)
def test_fixes_pass(text: str, wanted: list[str]):
    """The same language chooses fixes by type, state, host, priority, rule and words."""
    assert sorted(fixes(text)) == sorted(wanted)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("*x", "regular expression"),
        ("foo:bar", "no field foo"),
        ("status:zzz", "No status begins with zzz"),
        ("!", "what to look for"),
        ("type:", "what to look for"),
    ],
)
def test_mistakes_become_hints(text: str, hint: str):
    """What cannot be understood is told in a sentence, and looking goes on."""
    query = parse(text)
    assert any(hint in said for said in query.hints)
    images(text)


@given(st.text(max_size=60))
def test_nothing_that_is_typed_is_an_error(text: str):
    """Any text gives a query, and the query can be used."""
    query = parse(text)
    VIEW.images.select(query)
    triage(VIEW, Decisions(), query)

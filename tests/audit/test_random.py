"""Whatever stands in a place and in the definitions, an audit ends with a report."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.audit import rules
from engine.data.model import Status
from tests.audit.kit import look
from tests.audit.test_vdsm import uuid
from tests.tools.qcow2_kit import make

NAMES = (
    "a.qcow2", "b.qcow2", "c", "..", "../a.qcow2", "/", "/etc/passwd", "json:{}", 'json:{"file":{"filename":"c"}}',
    "json:" + "[" * 900, "file:", "nbd:", "\n", "a/b", "." * 300, "link", "round", "b.qcow2/..",
)  # fmt: skip
WORDS = ("CAP=8", "CAP=-1", "SIZE=x", "FORMAT=COW", "FORMAT=RAW", "FORMAT=", "VOLTYPE=LEAF", "VOLTYPE=INTERNAL", "=",
         "x", "LEGALITY=FAKE", f"PUUID={uuid(5)}", f"PUUID={uuid(6)}", f"PUUID={uuid(0)}", "EOF")  # fmt: skip


def spoilt(rng: random.Random, data: bytes, most: int = 5) -> bytes:
    """Some bytes are others, most of them near the start; sometimes the end is missing."""
    found = bytearray(data)
    for _ in range(rng.randrange(most)):
        at = rng.choice((rng.randrange(120), rng.randrange(len(found))))
        for place in range(at, min(len(found), at + rng.choice((1, 4, 8)))):
            found[place] = rng.choice((0, 255, 128, rng.randrange(256)))
    return bytes(found[: rng.randrange(len(found))] if rng.random() < 0.1 else found)


def fill(rng: random.Random, place: Path, vms: Path) -> None:
    (place / "link").symlink_to(rng.choice(("a.qcow2", "round", "..", "/etc/passwd")))
    (place / "round").symlink_to("round")
    for name in ("a.qcow2", "b.qcow2", "c"):
        path = make(place / name, 1 << 20, rng.choice((None, *NAMES)), "qcow2")
        path.write_bytes(spoilt(rng, path.read_bytes()))
    folder = place / "images" / rng.choice((uuid(1), "100"))
    folder.mkdir(parents=True)
    if rng.random() < 0.5:
        (place / "dom_md").mkdir()
    for number in (5, 6):
        (folder / uuid(number)).write_bytes((place / "c").read_bytes())
        (folder / f"vm-100-disk-{number}.qcow2").write_bytes((place / "c").read_bytes())
        lines = [*rng.choices(WORDS, k=8), "EOF"]
        (folder / f"{uuid(number)}.meta").write_bytes(spoilt(rng, "\n".join(lines).encode(), 2))
    source = rng.choice(NAMES).replace("\n", "&#10;").replace('"', "&quot;")
    xml = f'<domain><name>x</name><disk device="disk"><source file="{source}" dir="{source}"/></disk></domain>'
    (vms / "x.xml").write_bytes(spoilt(rng, xml.encode(), 3))
    (vms / "100.conf").write_text(f"scsi0: s:{rng.choice(NAMES)},size=1\nargs: {rng.choice(NAMES)}\n", encoding="utf-8")


@pytest.mark.parametrize("seed", range(24))
def test_an_audit_ends_with_a_report(tmp_path: Path, seed: int):
    """Headers, metadata, definitions and links at random: each image is judged once, orphans only without a doubt."""
    rng = random.Random(seed)
    place, vms = tmp_path / "place", tmp_path / "vms"
    place.mkdir()
    vms.mkdir()
    fill(rng, place, vms)
    found = look([place], [vms])
    paths = [image.path for image in found.report.images]
    assert len(paths) == len(set(paths))
    for image in found.report.images:
        told = [one for one in found.report.findings if one.path in image.names]
        assert (image.status is Status.OPTIMIZED) or image.rule in {one.rule for one in told}
    assert not (found.files(rules.A_ORPHAN) and found.report.unsure)

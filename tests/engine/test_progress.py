"""Progress lines keep what matters of an error."""

from __future__ import annotations

from engine.data.model import OperationStatus
from engine.data.progress import MAX_LINE_BYTES, Progress, decode, encode


def test_the_reason_of_a_long_error_is_kept():
    """Long paths are shortened before the text is cut: the reason stands behind them."""
    path = "/srv/" + "very-long/" * 12 + "f" * 32 + ".qcow2"
    text = (
        f"writing 2097152 bytes at 4194304 of {path} failed: No space left on device [ENOSPC]. Make room and try again."
    )
    line = encode(Progress(OperationStatus("copy", "host-a", 1, 2, 50, text, 1.5)))
    found = decode(line)
    assert len(line) <= MAX_LINE_BYTES and found is not None
    assert "No space left" in found.status.last_error and "fff.qcow2" in found.status.last_error


def test_only_what_was_stopped_says_so():
    """The field is not there else: the room of a line is for the error, and older programs pass over it."""
    failed = OperationStatus("copy", "host-a", 1, 2, 50, "no space", 1.5)
    for status in (failed, failed._replace(stopped=True)):
        line = encode(Progress(status))
        found = decode(line)
        assert found is not None and found.status == status and (b"stopped" in line) is status.stopped
    assert decode(b'{"cursor":0,"verb":"copy","stopped":1}') is None


def test_a_short_error_is_kept_as_it_is():
    """Paths too."""
    text = "cannot read /srv/images/a: Input/output error"
    found = decode(encode(Progress(OperationStatus("copy", "host-a", 1, 2, 50, text, 1.5))))
    assert found is not None and found.status.last_error == text

"""Tables and texts as files: JSON, CSV and plain text."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Sequence
from enum import StrEnum

from engine.errors import BadRequest, from_os_error
from tui.text.printable import pad, width

_TRIES = 100
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Form(StrEnum):
    """What a table is written as."""

    JSON = "json"
    CSV = "csv"
    TXT = "txt"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], form: str) -> str:
    """A table as text in a form; BadRequest for an unknown one. Cells are printable already."""
    if form == Form.JSON:
        return json.dumps([dict(zip(heads, row, strict=True)) for row in rows], indent=2, default=str) + "\n"
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if form == Form.CSV:
        return _csv(heads, cells)
    if form == Form.TXT:
        return _txt(heads, cells)
    raise BadRequest(f"tables are not written as {form!r:.20}", f"Use {', '.join(Form)}")


def _csv(heads: Sequence[str], rows: list[list[str]]) -> str:
    """Cells that a spreadsheet would take for a formula are quoted: names come from strangers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([f"'{cell}" if _formula(cell) else cell for cell in row] for row in rows)
    return text.getvalue()


def _formula(cell: str) -> bool:
    if not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return len(cell) > 1
    return False


def _txt(heads: Sequence[str], rows: list[list[str]]) -> str:
    table = [list(heads), *rows]
    widths = [max(width(row[column]) for row in table) for column in range(len(heads))]
    lines = ["  ".join(pad(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join(lines) + "\n"


def write(directory: str, name: str, form: str, text: str) -> str:
    """Write ``text`` into a new file ``diskwright-NAME-TIME.FORM`` and return its path; nothing is overwritten. The
    file, and the directory where it is not there, are made for their owner alone.

    Raises StorageError."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, f"make {directory}") from error
    for number in range(_TRIES):
        path = os.path.join(directory, file_name(name, form, number))
        try:
            with open(path, "x", encoding="utf-8", errors="backslashreplace", opener=_for_its_owner) as stream:
                stream.write(text)
        except FileExistsError:
            continue
        except OSError as error:
            raise from_os_error(error, f"write {path}") from error
        return path
    raise BadRequest(f"{directory} is full of exports of this second", "Try again")


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def file_name(name: str, form: str, number: int = 0) -> str:
    """``diskwright-NAME-TIME.FORM``, with a number after the first of a second; safe whatever the name is."""
    safe = "".join(
        character if character.isascii() and (character.isalnum() or character in "-_") else "-" for character in name
    )[:60]
    again = f"-{number}" if number else ""
    return f"diskwright-{safe}-{time.strftime('%Y%m%d-%H%M%S')}{again}.{form}"

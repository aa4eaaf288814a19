"""pytest inside a guest: its result becomes ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from sim.lab import Guest
from tests.contracts.source import ROOT

_TIMEOUT_S = 900.0
_LAST_CHARACTERS = 8000


class Counts(NamedTuple):
    """What became of the tests inside."""

    passed: int
    failed: int
    skipped: int


def run_tests(
    guest: Guest,
    files: Sequence[str],
    keyword: str = "",
    base: str = "/tmp/pytest",
    environment: Mapping[str, str] = {},
) -> Counts:
    """Run test files of this checkout in a guest, with temporary directories below ``base`` (of the guest), but what no
    kernel can change. Plugins that are installed are not used: to import them is half of what pytest takes there.

    Fails, showing the output, unless at least one test passed and none failed."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={base}"]
    words += ["--junitxml=/run/lab/share/report.xml", "-m", "not no_kernel", *files]
    words += ["-k", keyword] if keyword else []
    surroundings = {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    report = f"{guest.share}/report.xml"
    if os.path.exists(report):
        os.unlink(report)
    done = guest.run(words, cwd=str(ROOT), environment=surroundings, check=False, timeout_s=_TIMEOUT_S)
    said = f"exit code {done.code}\n{(done.stdout + done.stderr)[-_LAST_CHARACTERS:]}"
    assert os.path.exists(report), said
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    number = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    counts = Counts(number["tests"] - failed - number["skipped"], failed, number["skipped"])
    assert done.code == 0 and counts.passed > 0 and counts.failed == 0, f"{counts}\n{said}"
    return counts

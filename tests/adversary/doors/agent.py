"""What runs in a guest: `python -m tests.adversary.doors.agent DIRECTORY COMMAND SLOW`.

It does what lines on its standard input ask, [number, method of Hands, arguments], side by side, and answers
[number, result, kind of error, its text]. The directory of the worlds is that of the machine below, under the same
path: hosts import, export and write blocks from files that the adversary makes and reads outside.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.adversary.doors.hands import Hands
from tests.adversary.doors.machines import MachineError
from tests.adversary.doors.quick import Quick
from tests.adversary.oracle.findings import CannotTry, NotThere

_RUNTIME = Path("/run/adversary")
_AT_ONCE = 16


class _Agent:
    def __init__(self, hands: Hands) -> None:
        self._hands, self._alone = hands, threading.Lock()

    def serve(self) -> None:
        """Do what is asked until the input ends."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for line in sys.stdin:
                pool.submit(self._answer, *json.loads(line))

    def _answer(self, number: int, method: str, arguments: list[object]) -> None:
        result, kind, text = None, "", ""
        try:
            result = getattr(self._hands, method)(*arguments)
        except (CannotTry, NotThere, MachineError) as error:
            kind, text = type(error).__name__, str(error)
        except Exception as error:  # noqa: BLE001 (a fault of the adversary: told where it runs)
            kind, text = "AgentError", f"{method}: {type(error).__name__}: {error}"
        with self._alone:
            print(json.dumps([number, result, kind, text]), flush=True)


def main(directory: str, command: str, slow: str) -> None:
    """Show the directory of worlds under its own path, then serve."""
    os.makedirs(directory, exist_ok=True)
    hands = Hands(command, _RUNTIME, float(slow), Quick())
    if not os.path.ismount(directory):
        hands.shell('mount -t hostfs -o "$1" none "$1"', directory)
    _Agent(hands).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How long each of many jobs may take that have some time together."""

from __future__ import annotations

import time
from typing import NamedTuple

_MORE = 3
"""So many times its even share a job may take: most need less than theirs."""
_LEAST_S = 0.5


class Share(NamedTuple):
    """What a job gets of the time."""

    ends: float = float("inf")
    """When the time of all is over, by the clock of the system."""
    left: float = 1
    """How many jobs of one process have not begun, this one counted."""

    @property
    def seconds(self) -> float:
        """How long the job may take that begins now. What others did not need is shared by those that come later."""
        return max(_LEAST_S, min(1.0, _MORE / self.left) * (self.ends - time.time()))


def shares(seconds: float, jobs: int, processes: int) -> list[Share]:
    """Divide ``seconds`` that begin now among jobs that are begun in this order by so many processes."""
    ends = time.time() + seconds
    return [Share(ends, max(1.0, (jobs - number) / processes)) for number in range(jobs)]

"""Makes a story small: leaves actions out as long as the same kind of finding comes back."""

import time
from collections.abc import Callable, Iterator

from tests.adversary.oracle.findings import CannotTry
from tests.adversary.stories import Played, Story
from tests.adversary.world import Action

TRIES = 2  # of each shorter story: processes interleave in another way each time


def shrink(played: Played, replay: Callable[[Story], Played], seconds: float) -> Played:
    """Return the smallest story found in that time which shows a finding of the same kind, with what it showed."""
    deadline = time.monotonic() + seconds
    best = played
    progress = True
    while progress and time.monotonic() < deadline:
        progress = False
        for shorter in _shorter(best.story):
            if time.monotonic() > deadline:
                break
            if again := _shows(shorter, best.findings[0].kind, replay):
                best, progress = again, True
                break
    return best


def _shows(story: Story, kind: str, replay: Callable[[Story], Played]) -> Played | None:
    for _ in range(TRIES):
        try:
            played = replay(story)
        except CannotTry:
            return None
        if played.findings and played.findings[0].kind == kind:
            return played
    return None


def _shorter(story: Story) -> Iterator[Story]:
    """Return stories with less in them, the much shorter ones first."""
    count = len(story.rounds)
    places = [(number, at) for number, actions in enumerate(story.rounds) for at in range(len(actions))]
    size = count // 2
    while size >= 1:
        for start in range(0, count, size):
            yield _without(story, {(number, at) for number, at in places if start <= number < start + size})
        size //= 2
    for place in places:
        if len(story.rounds[place[0]]) > 1:
            yield _without(story, {place})
    for number in sorted(story.settles):
        yield Story(story.seed, story.plot, story.storage, story.rounds, story.settles - {number})


def _without(story: Story, places: set[tuple[int, int]]) -> Story:
    rounds: list[list[Action]] = []
    settles: set[int] = set()
    for number, actions in enumerate(story.rounds):
        kept = [action for at, action in enumerate(actions) if (number, at) not in places]
        if number in story.settles and kept:
            settles.add(len(rounds))
        if kept:
            rounds.append(kept)
    return Story(story.seed, story.plot, story.storage, rounds, settles)

"""Verbs that change what is said of an image and not what it contains: its user data, its strategy.

One published record each, which needs no lease.
"""

from __future__ import annotations

from typing import Any

from engine.data.model import Strategy
from engine.data.records import check_user_data
from engine.errors import BadRequest
from engine.tags import changes
from engine.tags.context import Context


def set_user_data(context: Context, repo_id: str, image: str, user_data: Any) -> None:
    """Replace the user data of an image, all of it or nothing. Two at once: one wins whole."""
    checked = check_user_data(user_data)
    context.visible(repo_id, image)
    changes.change(context.repository(repo_id), image, lambda record: record._replace(user_data=checked))


def set_strategy(context: Context, repo_id: str, image: str, strategy: str) -> None:
    """Change what is valued for an image. Its status follows; check then offers the way there."""
    if strategy not in list(Strategy):
        raise BadRequest(f"strategy {strategy!r:.60} is unknown", "Use space or performance")
    valued = Strategy(strategy)
    context.visible(repo_id, image)
    changes.change(context.repository(repo_id), image, lambda record: record._replace(strategy=valued))

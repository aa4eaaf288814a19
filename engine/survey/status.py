"""What is the matter with one image: a look around it, and who works on it now."""

from __future__ import annotations

from engine.data.model import ImageReport, RepositoryReport, require_id
from engine.errors import NotFound
from engine.formats.base import Repository
from engine.survey import survey
from engine.tags import leasing
from engine.tags.context import Context
from engine.triage.judge import judge


def status_of(context: Context, repo_id: str, image_id: str, deep: bool) -> ImageReport:
    """Return what is seen of an image. NotFound, which tells what has become of one that was removed or is hidden."""
    require_id(image_id, "image_id")
    repository = context.repository(repo_id)
    found = part_of(context, repository, judge(survey.look(context, repository, deep, only=image_id)), image_id)
    if found is not None:
        return found
    context.visible(repo_id, image_id)  # tells what has become of it
    raise NotFound(f"there is no image {image_id} in {repo_id}", "diskwright images lists what is there")


def part_of(context: Context, repository: Repository, report: RepositoryReport, image_id: str) -> ImageReport | None:
    """Return what a report says of an image, and who works on it now; None when it is not there, or hidden."""
    found = next((one for one in report.images if one.id == image_id and not one.hidden), None)
    if found is None or not leasing.is_held(repository, image_id):
        return found
    return found._replace(busy=leasing.holder(context.doors, repository, image_id))

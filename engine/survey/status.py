"""What is the matter with one image: a look around it, and who works on it now."""

from __future__ import annotations

from engine.data.model import ImageReport, require_id
from engine.errors import NotFound
from engine.survey import survey
from engine.tags import leasing
from engine.tags.context import Context
from engine.triage.judge import judge


def status_of(context: Context, repo_id: str, image_id: str, deep: bool) -> ImageReport:
    """Return what is seen of an image. NotFound, which tells what has become of one that was removed or is hidden."""
    require_id(image_id, "image_id")
    repository = context.repository(repo_id)
    view = survey.look(context, repository, deep, only=image_id)
    for image in judge(view).images:
        if image.id == image_id and not image.hidden:
            if leasing.is_held(repository, image_id):
                return image._replace(busy=leasing.holder(context.doors, repository, image_id))
            return image
    context.visible(repo_id, image_id)  # tells what has become of it
    raise NotFound(f"there is no image {image_id} in {repo_id}", "diskwright images lists what is there")

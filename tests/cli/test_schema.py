"""The schema of what --json prints. That documents are as it says is looked at wherever a test runs a command
(``tests.cli.conftest.is_as_published``)."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.cli.conftest import Command
from tui.cli.help import COMMANDS
from tui.cli.schema import VERSION, of, schema


def test_the_schema_is_published_and_has_every_command(run: Command):
    """The help gives it; it is a schema, has its version, and says of each command what it prints."""
    published = run.json("help", "json")["schema"]
    Draft202012Validator.check_schema(published)
    assert published == schema() and published["version"] == VERSION
    assert COMMANDS.keys() <= published["$defs"].keys()


def test_a_field_that_is_missing_is_found(run: Command, main_repo: str):
    """The schema requires what it names."""
    document = run.json("check", main_repo)
    Draft202012Validator(of("check")).validate(document)
    for name in document:
        with pytest.raises(ValidationError):
            Draft202012Validator(of("check")).validate({key: document[key] for key in document if key != name})


def test_what_a_name_stands_for(run: Command, main_repo: str):
    """Each kind of document of an image's life is as published: made, looked at, used, removed, fixed, undone."""
    disk = run.json("create-disk", main_repo, "1M", "--name", "web", "--wait")["image"]
    snapshot = run.json("create-snapshot", main_repo, disk, "--name", "monday")["image"]
    for words in (
        ("images", main_repo), ("images", main_repo, "--tree"), ("status", main_repo, disk), ("why", main_repo, disk),
        ("why", "B-COPY"), ("check", main_repo), ("tasks",), ("log",), ("repos",), ("constraints", main_repo),
        ("rename", main_repo, disk, "new"), ("user-data", "get", main_repo, disk), ("resize", main_repo, disk, "2M"),
        ("strategy", main_repo, disk, "performance"), ("digest", main_repo, snapshot), ("plan", main_repo),
        ("prepare", main_repo, disk), ("tasks",), ("teardown", main_repo, disk), ("fix", main_repo, "--all"),
        ("remove", main_repo, disk), ("restore", main_repo, disk), ("completion", "bash"), ("help",),
        ("disconnect", main_repo),
    ):  # fmt: skip
        run.json(*words)
    run("images", "nowhere", "--json", code=3)

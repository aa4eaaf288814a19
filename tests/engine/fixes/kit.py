"""What the tests of fixes share: rules, statuses and files of one image."""

from __future__ import annotations

from tests.crash.kit import SIZE, write


def status(engine, repo, image, **options):
    return engine.get_image_status(repo, image, options).status


def rules(engine, repo, **options):
    return [fix.rule for fix in engine.check_storage_repository(repo, options)]


def record_of(world, repo, image):
    return max((world.root / repo / "tags").glob(f"*/{image}.*"))


def wait(engine):
    for task in engine.list_tasks():
        engine.wait_for_task(task)


def snapshot_in_both(engine):
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M", "write -P 2 2M 512k")
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot)
    wait(engine)
    return disk, snapshot

"""Connection parameters of repositories on NFS, and the mount options made of them."""

from __future__ import annotations

import pytest

from engine.errors import BadRequest
from engine.formats.nfs.place import MOUNTS, Place, parse

GOOD: dict[str, object] = {"server": "nas.example", "export": "/srv/images"}


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        (GOOD, Place("nas.example", "/srv/images")),
        ({"server": "nas", "export": "/"}, Place("nas", "/")),
        ({"server": "192.0.2.7", "export": "//srv//images/"}, Place("192.0.2.7", "/srv/images")),
        ({"server": "[2001:db8::7]", "export": "/srv"}, Place("[2001:db8::7]", "/srv")),
        ({"server": "[fe80::1%eth0]", "export": "/srv"}, Place("[fe80::1%eth0]", "/srv")),
        ({"server": "nas", "export": "/my [disks]* ,ü:1"}, Place("nas", "/my [disks]* ,ü:1")),
        (GOOD | {"directory": "a b//c/"}, Place("nas.example", "/srv/images", "a b/c")),
        (GOOD | {"options": "timeo=600,,hard"}, Place("nas.example", "/srv/images", "", ("timeo=600", "hard"))),
        ({"path": "/mnt/nas//images/"}, Place(path="/mnt/nas/images")),
    ],
)
def test_parameters_name_a_place(parameters: dict[str, object], place: Place):
    """Server and export, or a path in a mount of the operator's; slashes too many do not matter."""
    assert parse(parameters) == place


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"server": "nas"},
        {"export": "/srv"},
        {"path": "/mnt", "server": "nas", "export": "/srv"},
        GOOD | {"mount": "x"},
        GOOD | {"server": ""},
        GOOD | {"server": "-o"},
        GOOD | {"server": "nas,ro"},
        GOOD | {"server": "nas other"},
        GOOD | {"server": "nas:/other"},
        GOOD | {"server": "nas\n"},
        GOOD | {"server": "2001:db8::7"},
        GOOD | {"server": "[nas]"},
        GOOD | {"server": "[::1"},
        GOOD | {"server": "nas/"},
        GOOD | {"server": "a" * 254},
        GOOD | {"server": 7},
        GOOD | {"export": "srv"},
        GOOD | {"export": "-o"},
        GOOD | {"export": "/srv/../etc"},
        GOOD | {"export": "/srv\n/x"},
        GOOD | {"export": "/srv\0"},
        GOOD | {"export": "/\udcff"},
        GOOD | {"export": "/" + "x" * 1100},
        GOOD | {"export": None},
        GOOD | {"directory": "/abs"},
        GOOD | {"directory": "a/../../b"},
        GOOD | {"directory": 1},
        {"path": "/"},
        {"path": "relative"},
        {"path": "/mnt/./x"},
    ],
)
def test_hostile_parameters_are_refused(parameters: dict[str, object]):
    """Nothing that could be taken for another option, host, directory or line."""
    with pytest.raises(BadRequest):
        parse(parameters)


@pytest.mark.parametrize(
    "options",
    [
        "ro", "nolock", "local_lock=all", "vers=3", "nfsvers=3", "vers=4.2 ro", "timeo=600;ro", "timeo=", "timeo",
        "hard=1", "lookupcache=all", "actimeo=60", "nocto", "exec", "suid", "-o", "timeo=600\n", "addr=192.0.2.1",
        "fsc", "bg", "sec=none", "port=-1", "rw", "remount", "context=x", 5,
    ],
)  # fmt: skip
def test_options_that_break_the_format_or_are_unknown_are_refused(options: object):
    """Only options that are known to be harmless; the refusal names them."""
    with pytest.raises(BadRequest):
        parse(GOOD | {"options": options})


def test_the_mount_is_soft_fresh_and_version_4():
    """By default a server that is away becomes an error, an absent name is asked for again, NFSv3 is not tried, and
    nothing on the export is a program or a device."""
    assert parse(GOOD).mount_options.split(",") == [
        *("vers=4", "soft", "timeo=100", "retrans=2", "lookupcache=positive"),
        *("nosuid", "nodev", "noexec", "retry=0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "gone"),
    [("hard", "softerr"), ("timeo=600", "timeo=100"), ("retrans=9", "retrans=2"), ("nfsvers=4.1", "vers=4")],
)
def test_an_option_of_the_operator_replaces_ours(given: str, gone: str):
    """Not both stand there: which of two counts depends on the program."""
    options = parse(GOOD | {"options": given}).mount_options.split(",")
    assert given in options and gone not in options


def test_each_repository_and_host_has_a_mount_of_its_own():
    """The mount point depends on the host, the server, the export, the directory and the options, and on nothing
    else; it is a plain name."""
    points = [
        parse(parameters).mount_point(host)
        for host in ("a", "b")
        for parameters in (
            GOOD, *(GOOD | other for other in (
                {"server": "other"}, {"export": "/x"}, {"directory": "d"}, {"options": "hard"},
            )),
        )
    ]  # fmt: skip
    assert len(set(points)) == len(points)
    assert all(point.startswith(f"{MOUNTS}/") and point[len(MOUNTS) + 1 :].isalnum() for point in points)
    assert parse(GOOD | {"export": "/srv//images/", "directory": ""}).mount_point("a") == points[0]


def test_a_place_is_shown_as_people_write_it():
    """Server, export and directory, or the path."""
    assert parse(GOOD).shown == "nas.example:/srv/images"
    assert parse(GOOD | {"directory": "d"}).shown == "nas.example:/srv/images/d"
    assert parse({"server": "nas", "export": "/", "directory": "d"}).shown == "nas:/d"
    assert parse({"server": "nas", "export": "/"}).shown == "nas:/"
    assert parse({"path": "/mnt/x"}).shown == "/mnt/x"

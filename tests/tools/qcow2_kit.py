"""Helpers: images as files, and what the real tools say of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, fresh_image, parse_header

MIB = 1 << 20


def qemu_img(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["qemu-img", *arguments], check=False, capture_output=True, text=True)


def info(path: Path) -> dict[str, Any]:
    done = qemu_img("info", "--output=json", "-f", "qcow2", path)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def make(path: Path, size: int, backing: str | None = None, backing_format: str | None = None) -> Path:
    """Write a fresh qcow2 as the formats do it."""
    image = fresh_image(size, backing, backing_format)
    with open(path, "wb") as file:
        for offset, data in image.pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(image.length)
    return path


def header_of(path: Path) -> Header:
    raw = path.read_bytes()[:HEADER_READ_BYTES]
    return parse_header(raw, path.stat().st_size)


def qcow2(path: Path) -> Layer:
    return Layer(str(path), VolumeFormat.QCOW2)


def raw(path: Path) -> Layer:
    return Layer(str(path), VolumeFormat.RAW)


def patch(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)

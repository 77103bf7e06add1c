"""Generations on disk: written whole or not at all, and read back only if not a byte has changed."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

WEIGHTS, SAMPLES, METRICS = FILES = ("weights.safetensors", "samples.safetensors", "metrics.json")
NAME = re.compile(r"generation-(\d{3,6})")
SYNC = 5.0  # seconds: a kill costs nothing that has its name, a power cut at most as much (and digests notice it)


def numbers(folder: Path) -> list[int]:
    """Which generations have a folder in the folder of a run, in order; damaged ones too.

    Examples
    --------
    >>> numbers(Path("no such folder"))
    []
    """
    return sorted(int(m[1]) for p in folder.glob("generation-*") if (m := NAME.fullmatch(p.name)))


class Stored:
    """The generations of a run on disk, each file checked by its digest.

    A generation names the digest of the weights before its own as its parent, so that what followed from other weights
    is not taken for a part of this run. Reading changes nothing on disk.

    Parameters
    ----------
    folder : path
        Of the run.
    say : callable
        Told what is damaged or missing, by name.

    Examples
    --------
    >>> len(Stored(Path("no such folder")))
    0
    """

    def __init__(self, folder: Path, say: Callable[[str], object] = print) -> None:
        self.folder, self.say, self.synced = folder, say, -SYNC
        self.digests: dict[int, dict[str, str]] = {}  # of each generation's whole files, and of its parent
        there = numbers(folder)
        if missing := [self.path(i).name for i in range(max(there, default=0)) if i not in set(there)]:
            say(f"{folder}: {', '.join(missing)} missing; to be made again")
        for i in there:
            self.digests[i] = self._whole_files(i)

    def __len__(self) -> int:
        """How many generations are finished and whole, from 0 without a gap."""
        return next(i for i in count() if not self.whole(i))

    def path(self, i: int) -> Path:
        """The folder of generation i."""
        return self.folder / f"generation-{i:03d}"

    def whole(self, i: int) -> bool:
        """Whether nothing of generation i has to be made (again)."""
        return all(self.has(i, name) for name in FILES)

    def read(self, i: int, name: str) -> bytes | None:
        """A file of generation i; None where it has to be made (again).

        Raises
        ------
        OSError
            The file was whole and is no longer.
        """
        if not self.has(i, name):
            return None
        content = (self.path(i) / name).read_bytes()
        if _digest(content) != self.digests[i][name]:
            raise OSError(errno.EIO, f"{self.path(i) / name}: changed while it was in use; start again")
        return content

    def write(self, i: int, files: Mapping[str, bytes]) -> None:
        """Put a generation on disk, whole or not at all; where it is damaged, only what is damaged is replaced.

        Raises
        ------
        OSError
            The disk is full, say; the message tells what is kept.
        """
        digests = {name: _digest(content) for name, content in files.items()} | {"parent": self.parent(i)}
        files = {**files, "digests.json": as_json(digests)}
        sync = time.monotonic() - self.synced > SYNC
        try:
            if self.path(i).is_dir():  # the digests last: until then, what is new counts as damaged
                whole = self.digests.get(i, {})
                for name in (name for name in files if name not in whole or whole[name] != digests[name]):
                    replace(self.path(i) / name, files[name])
            else:
                _write_folder(self.path(i), files, sync)
        except OSError as error:
            kept = f"generations 0 to {i - 1} are kept" if i else "no generation was finished"
            reason = error.strerror or error
            raise OSError(error.errno, f"{self.path(i)}: could not be written ({reason}); {kept}") from error
        self.digests[i] = digests
        if sync:
            self.synced = time.monotonic()

    def parent(self, i: int) -> str:
        """Digest of the weights of the generation before; empty for generation 0."""
        return self.digests.get(i - 1, {}).get(WEIGHTS, "unknown") if i else ""

    def has(self, i: int, name: str) -> bool:
        """Whether a file of generation i is whole, and follows from the generation before."""
        found = self.digests.get(i, {})
        return name in found and found["parent"] == self.parent(i)

    def _whole_files(self, i: int) -> dict[str, str]:
        """Digests of the files of generation i that are as recorded; the others are said to be damaged."""
        path = self.path(i)
        try:
            recorded = json.loads((path / "digests.json").read_bytes())
            expected = {name: str(recorded[name]) for name in (*FILES, "parent")}
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.say(f"{path / 'digests.json'}: damaged ({error!r:.200}); the generation is to be made again")
            return {}
        whole = {"parent": expected["parent"]}
        for name in FILES:
            try:
                found = _digest((path / name).read_bytes())
            except FileNotFoundError:
                found = "none, it is missing"
            if found == expected[name]:
                whole[name] = found
            else:
                self.say(f"{path / name}: damaged (SHA-256 {found}, expected {expected[name]}); to be made again")
        if i - 1 in self.digests and self.parent(i) not in ("unknown", whole["parent"]):
            self.say(f"{path}: does not follow from the weights of generation {i - 1}; to be made again")
        return whole


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: no other process does at the same time.

    Raises
    ------
    BlockingIOError
        Another process holds it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, alone(Path(folder)):
    ...     try:
    ...         with alone(Path(folder)):
    ...             pass
    ...     except BlockingIOError as error:
    ...         print(error.strerror.rpartition(": ")[2])
    another process is at work on this run
    """
    lock = _lock(folder)
    try:
        lock.acquire(timeout=1)  # a killed process's own child may hold it for a moment
    except Timeout:
        hint = f" (if none is, remove {lock.lock_file})" if isinstance(lock, SoftFileLock) else ""
        message = f"{folder}: another process is at work on this run{hint}"
        raise BlockingIOError(errno.EAGAIN, message) from None
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path) -> BaseFileLock:
    """One that the system takes back from what was killed; on drives that have none, a file that exists.

    Not left to filelock: before 4.1 its own substitute does not keep a second process out.
    """
    with open(folder / ".lock", "a+b") as file:  # NFS gives locks to share to those who may read
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody holds it, so there are locks
        except OSError:
            return SoftFileLock(folder / ".held")
    return FileLock(folder / ".lock")


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under another name first, then renamed.

    Raises
    ------
    OSError
        With the path in its message; what was there before stays.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace(Path(folder) / "a.json", as_json({"a": 1}))
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.json']
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write(part, content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, f"{path}: could not be written ({error.strerror or error})") from error


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had half written.

    Examples
    --------
    >>> remove_leftovers(Path("no such folder"))
    """
    for part in [*folder.glob(".*.part"), *folder.glob("generation-*/.*.part")]:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def as_json(content: Any) -> bytes:
    """A JSON text, indented for people; numbers that are not finite are written as Python reads them.

    Examples
    --------
    >>> as_json({"a": 1}).split()
    [b'{', b'"a":', b'1', b'}']
    """
    return (json.dumps(content, indent=1) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes, sync: bool = True) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _write_folder(path: Path, files: Mapping[str, bytes], sync: bool) -> None:
    """Write all files of a folder, then give it its name."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        for name, content in files.items():
            _write(part / name, content, sync)
        if sync:
            _sync(part)
        os.rename(part, path)
        if sync:
            _sync(path.parent)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _sync(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can (mounted drives often cannot).

    A name that is lost for want of it is a generation that is made again.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

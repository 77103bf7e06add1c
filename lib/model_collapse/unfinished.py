"""What is kept of a generation while it is being made, so that a killed run goes on inside it."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from model_collapse.stored import replace

Arrays = Mapping[str, NDArray[Any]]
EVERY = 60.0  # seconds between two writes, at least
SHARE = 20  # after a write that takes longer than a part of that in so many, more


class Unfinished:
    """Arrays under a name, on disk as soon as a run has said where; before that nothing is kept.

    A file's name holds the generation that is being made, the digest of the weights that it follows from, and the
    digest of its own content: what was altered, or belongs to something else, is not found.

    Parameters
    ----------
    size : int
        Bytes on disk at most, about.
    every : float
        Seconds between two writes, at least; what comes sooner is not written.

    Attributes
    ----------
    spent : float
        Seconds that went into this generation before: until the last write that was found.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> kept = Unfinished(every=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept.begin(Path(folder), 3, "0123456789ab")
    ...     kept.save("fit", lambda: {"epoch": np.array(2)})
    ...     kept.load("fit")
    {'epoch': array(2)}
    """

    def __init__(self, size: int = 0, every: float = EVERY) -> None:
        self.folder: Path | None = None
        self.size = size
        self.key, self.every = "", every
        self.began, self.spent = time.monotonic(), 0.0
        self.saved, self.took = self.began, 0.0

    def begin(self, folder: Path, generation: int, parent: str) -> None:
        """Name the generation that is being made; what was kept of others is removed.

        Parameters
        ----------
        folder : path
            Of the run.
        generation : int
        parent : str
            Digest of the weights of the generation before; empty for generation 0.
        """
        key = f"unfinished-{generation:03d}-{parent[:12] or 'first'}"
        if key != self.key:
            self.key, self.began, self.spent = key, time.monotonic(), 0.0
        self.folder = folder
        remove_unfinished(folder, but=key)

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What was last saved under a name in this generation; None if nothing whole is there."""
        for file in self._files(name):
            content = file.read_bytes()
            if file.stem.rpartition("-")[2] == _digest(content):
                arrays = load(content)
                self.spent = max(self.spent, float(arrays.pop("seconds", 0.0)))
                return arrays
            _remove(file)
        return None

    def save(self, name: str, arrays: Callable[[], Arrays], *, now: bool = False) -> None:
        """Keep arrays in place of what was saved under the name, `now` or if the last write is long enough ago.

        Raises
        ------
        OSError
            The disk is full, say; what was saved before stays.
        """
        pause = self.every * max(1, SHARE * self.took / EVERY)
        if self.folder is None or not (now or time.monotonic() - self.saved >= pause):
            return
        began = time.monotonic()
        seconds = self.spent + time.monotonic() - self.began
        content = save({**arrays(), "seconds": np.array(seconds)})
        before = self._files(name)
        file = self.folder / f"{self.key}-{name}-{_digest(content)}.safetensors"
        replace(file, content)
        for old in before:
            if old != file:
                _remove(old)
        self.saved = time.monotonic()
        self.took = self.saved - began

    def _files(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{self.key}-{name}-*.safetensors")) if self.folder else []


def remove_unfinished(folder: Path, but: str = " ") -> None:
    """Remove what is kept of unfinished generations, except under one key.

    Examples
    --------
    >>> remove_unfinished(Path("no such folder"))
    """
    for file in folder.glob("unfinished-*"):
        if not file.name.startswith(f"{but}-"):
            _remove(file)


def _remove(file: Path) -> None:
    """Empty a file, then remove it; nothing follows from what cannot be removed."""
    with suppress(OSError):
        file.write_bytes(b"")  # Google Drive keeps what is removed, and counts it
        file.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

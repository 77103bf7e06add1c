"""What is kept of a generation while it is being made, so that a killed run goes on inside it."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load, save

from model_collapse.stored import replace

Arrays = Mapping[str, NDArray[Any]]
EVERY = 60.0  # seconds between two writes


class Unfinished:
    """Arrays under a name, on disk as soon as a run has said where; before that nothing is kept.

    A file's name holds the generation that is being made, the digest of the weights that it follows from, and the
    digest of its own content: what was altered, or belongs to something else, is not found.

    Parameters
    ----------
    size : int
        Bytes on disk at most, about.
    every : float
        Seconds between two writes; what comes sooner is not written.

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
        self.key, self.every, self.saved = "", every, time.monotonic()

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
        self.folder, self.key = folder, f"unfinished-{generation:03d}-{parent[:12] or 'first'}"
        remove_unfinished(folder, but=self.key)

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What was last saved under a name in this generation; None if nothing whole is there."""
        for file in self._files(name):
            content = file.read_bytes()
            if file.stem.rpartition("-")[2] == _digest(content):
                return load(content)
            file.unlink()
        return None

    def save(self, name: str, arrays: Callable[[], Arrays], *, now: bool = False) -> None:
        """Keep arrays in place of what was saved under the name, `now` or if the last write is long enough ago.

        Raises
        ------
        OSError
            The disk is full, say; what was saved before stays.
        """
        if self.folder is None or not (now or time.monotonic() - self.saved >= self.every):
            return
        content = save(dict(arrays()))
        before = self._files(name)
        file = self.folder / f"{self.key}-{name}-{_digest(content)}.safetensors"
        replace(file, content)
        for old in before:
            if old != file:
                with suppress(OSError):
                    old.unlink()
        self.saved = time.monotonic()

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
            file.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

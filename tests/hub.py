"""A server on this machine that answers like the Hugging Face hub when files are fetched, and fails when told to.

What it imitates, as the code of huggingface_hub expects it: HEAD on `/[datasets/]REPO/resolve/REVISION/PATH` tells the
commit and the ETag; a file of Git LFS is redirected to a second host, which sends the content, in parts where a range
is asked for; a repository that was renamed is redirected on the same host; what is not there is a 404 whose header says
which part is missing.
"""

import hashlib
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_connection

from model_collapse.data_files import HubFile

REVISION = "0123456789abcdef0123456789abcdef01234567"
ASKED_ONCE = {("HEAD", "resolve"): 1, ("GET", "content"): 1}
ADDRESS = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """The server: its files, what goes wrong next, what was asked, and how long the client would have waited.

    `faults` maps (method, "resolve" or "content") to answers still to be given before a right one: a status, or
    "truncated" (a shorter file than announced, whole by its own headers), "broken" (the connection ends midway, and a
    part is sent when asked), "hung up" (ends before the first byte). `newest` maps (kind, repository) to the commit of
    its branch main.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.renamed, self.newest, self.faults = {}, {}, {}, {}
        self.asked, self.waited, self.cache = [], [], None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, file, content, *, lfs=True, announced=None):
        """Offer a file (a `HubFile`); `announced` replaces its true digest in what the hub says of it."""
        digest = announced or hashlib.sha256(content).hexdigest()
        self.files[file.kind, file.repo, file.revision, file.path] = (content, digest, lfs)

    def add_model(self, folder, repo, revision=REVISION):
        """Offer a model's repository: all files of a folder, the large ones as files of Git LFS."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file = HubFile(repo, revision, str(path.relative_to(folder)), kind="model")
            self.add(file, path.read_bytes(), lfs=path.suffix in (".safetensors", ".bin"))

    def fault(self, method, place):
        waiting = self.faults.get((method, place), [])
        return waiting.pop(0) if waiting else None

    def missing(self, kind, repo, revision):
        """Which part of an address is missing, in the hub's words."""
        repositories = {key[:2] for key in self.files}
        revisions = {key[:3] for key in self.files}
        if (kind, repo) not in repositories:
            return "RepoNotFound"
        return "EntryNotFound" if (kind, repo, revision) in revisions else "RevisionNotFound"

    def counted(self):
        """How often which method was asked for which place."""
        return Counter(self.asked)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        found = ADDRESS.fullmatch(self.path)
        content = self.path.startswith("/content/")
        if not (found or content):
            return self.head(404)  # what the library asks besides is neither known nor counted
        place = "content" if content else "resolve"
        self.server.asked.append((self.command, place))
        fault = self.server.fault(self.command, place)
        if isinstance(fault, int):
            return self.head(fault)
        return self.send_content(fault) if content else self.resolve(found)

    def resolve(self, found):
        kind, repo, revision, path = "dataset" if found[1] else "model", *found.groups()[1:]
        if (kind, repo) in self.server.renamed:
            moved = self.path.replace(repo, self.server.renamed[kind, repo], 1)
            return self.head(307, Location=moved)
        if revision == "main":
            revision = self.server.newest.get((kind, repo), revision)
        if (kind, repo, revision, path) not in self.server.files:
            return self.head(404, X_Error_Code=self.server.missing(kind, repo, revision), X_Repo_Commit=revision)
        content, digest, lfs = self.server.files[kind, repo, revision, path]
        if lfs:
            location = f"http://localhost:{self.server.server_port}/content/{digest}"  # another host, by its name
            linked = {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": len(content)}
            return self.head(302, Location=location, X_Repo_Commit=revision, **linked)
        self.head(200, len(content), ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=revision)
        if self.command == "GET":
            self.wfile.write(content)
        return None

    def send_content(self, fault):
        digest = self.path.rpartition("/")[2]
        content = next(content for content, known, _ in self.server.files.values() if known == digest)
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        part = content[start:]
        if fault == "truncated":
            part = part[: len(part) // 2]
        ranged = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.head(206 if start else 200, len(part), ETag=f'"{digest}"', **ranged)
        if fault in ("broken", "hung up"):
            part = part[: len(part) // 2] if fault == "broken" else b""
            self.close_connection = True
        self.wfile.write(part)

    def head(self, status, length=0, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_):
        """Nothing on the terminal."""


def point_at(monkeypatch, endpoint, cache):
    """Make huggingface_hub, imported or not, use this hub and cache, no other host, and no proxy."""

    def connect(address, *options, **named):
        assert address[0] in ("127.0.0.1", "localhost"), f"a test asked {address}"
        return create_connection(address, *options, **named)

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("socket.create_connection", connect)
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", endpoint)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)


@contextmanager
def serving(monkeypatch, cache):
    """A hub that answers until the block ends, to which huggingface_hub is pointed; waits are noted, not done."""
    with Hub() as hub:
        hub.cache = cache
        point_at(monkeypatch, hub.endpoint, cache)
        monkeypatch.setattr("time.sleep", hub.waited.append)
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()

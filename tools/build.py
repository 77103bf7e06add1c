"""Build the pages from the stored outputs into _build/html, if anything that they are made from has changed."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from book_site import repository

ROOT = Path(__file__).resolve().parent.parent
INPUTS = [
    "_config.yml",
    "_toc.yml",
    "requirements.lock",
    "pyproject.toml",
    "CITATION.cff",
    "book/executed.json",
    "book/results/*.csv",
    "book/*.ipynb",
    "book/*.md",
    "book/references.bib",
    "book/assets/**/*",
    "tools/*.py",
    "lib/**/*.py",
]
FLAGS = ["-n", "-W", "--keep-going", "-q"]  # every warning is an error, a missing reference too


def digest(root: Path) -> str:
    """Return the digest of all that the pages are made from, the repository's address included."""
    made_from = hashlib.sha256(str(repository(str(root))).encode())
    for path in sorted(path for pattern in INPUTS for path in root.glob(pattern) if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).digest()
        made_from.update(path.relative_to(root).as_posix().encode() + b"\0" + content)
    return made_from.hexdigest()


def build_pages(root: Path = ROOT) -> Path:
    """Return the book's first page, after building all pages anew where they are not up to date.

    Raises
    ------
    SystemExit
        The build gave a warning or an error; it was printed.
    """
    build, index = root / "_build", root / "_build" / "html" / "index.html"
    stamp, current = build / "pages.sha256", digest(root)
    if index.exists() and stamp.exists() and stamp.read_text() == current:
        return index
    for old in ("html", ".doctrees", "jupyter_execute"):  # pages of deleted chapters go, static files are fresh
        shutil.rmtree(build / old, ignore_errors=True)
    stamp.unlink(missing_ok=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), *FLAGS]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}  # the API of this tree, whatever else is installed
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit("pages: the build failed; the warnings above say where")
    pack_pictures(build / "html")
    stamp.write_text(current)
    return index


def pack_pictures(html: Path) -> None:
    """Write the pages' pictures anew with fewer bytes and the same pixels."""
    for path in html.glob("_images/*.png"):
        with Image.open(path) as picture:
            picture.load()
        picture.save(path, optimize=True)


def main() -> None:
    """Build what is stale, and print the page to open."""
    print(f"open {build_pages().as_uri()}")


if __name__ == "__main__":
    main()

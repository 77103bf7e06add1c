"""Sphinx extension: MathJax from the build, a link to the index, buttons that lead to the repository wherever it lives.

MathJax 3.2.2 comes with the package sphinx-mathjax-offline, which is used as a carrier of the files alone: as an
extension it would copy all of its 24 MB, where the pages need 2.
"""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

CARRIER = "sphinx-mathjax-offline"
COLAB, COLAB_ICON = "https://colab.research.google.com/github", "_static/images/logo_colab.png"  # the theme's picture
MATHJAX = ["tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"]  # extensions: loaded when used


def stage_mathjax(app: Sphinx) -> None:
    """Copy the part of MathJax that the pages use to the static files of the build."""
    carrier = find_spec(CARRIER)
    if carrier is None or carrier.origin is None:
        raise ExtensionError(f"{CARRIER} is not installed: install requirements.lock")
    source = Path(carrier.origin).parent / "static" / "mathjax"
    folder = Path(app.doctreedir).parent / "static-mathjax"
    for part in MATHJAX:
        target = folder / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, target)
    app.config.html_static_path.append(str(folder))


def repository(folder: str) -> str | None:
    """Return the address of the repository on GitHub: of this workflow, else of the remote `origin`, else None."""
    name = os.environ.get("GITHUB_REPOSITORY") or from_remote(origin(folder))
    return f"https://github.com/{name}" if name else None


def origin(folder: str) -> str:
    """Return the address of the remote `origin` ('' where there is none, or no git)."""
    try:
        command = ["git", "-C", folder, "remote", "get-url", "origin"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def from_remote(address: str) -> str | None:
    """Return owner/name from the address of a repository on GitHub, else None.

    Examples
    --------
    >>> from_remote("git@github.com:owner/name.git"), from_remote("https://github.com/owner/name")
    ('owner/name', 'owner/name')
    >>> from_remote("/srv/git/name.git")
    """
    found = re.fullmatch(r"(?:https://|ssh://)?(?:[^@/]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)
    return found[1] if found else None


def pages_address(address: str) -> str:
    """Return where GitHub's pages of a repository are read.

    Examples
    --------
    >>> pages_address("https://github.com/Owner/name"), pages_address("https://github.com/owner/owner.github.io")
    ('https://owner.github.io/name', 'https://owner.github.io')
    """
    owner, name = address.split("/")[-2:]
    host = f"{owner.lower()}.github.io"
    return f"https://{host}" if name.lower() == host else f"https://{host}/{name}"


def add_buttons(app: Sphinx, config: Config) -> None:
    """Turn on the buttons of the repository where the address is known; else show none that lead nowhere."""
    options = config.html_theme_options
    address = repository(str(app.srcdir))
    if address is None:
        options.pop("repository_url", None)
        return
    options |= {"repository_url": address, "use_repository_button": True, "use_issues_button": True}


def add_index(app: Sphinx, doctree: nodes.document) -> None:
    """Put the general index at the end of the contents: _toc.yml can only name pages that have a source."""
    contents = list(doctree.findall(addnodes.toctree))
    if app.env.docname == app.config.root_doc and contents:
        contents[-1]["entries"].append(("Index", "genindex"))


def add_colab(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add the buttons that open the chapter on Colab, as the branch `colab` has it (tools/colab.py)."""
    address = repository(str(app.srcdir))
    if address is None or context.get("page_source_suffix") != ".ipynb":
        return
    branch = f"{COLAB}{address.removeprefix('https://github.com')}/blob/colab"
    name = page.rpartition("/")[2]
    buttons = [
        {
            "type": "link",
            "text": text,
            "tooltip": f"Open on {text}",
            "icon": COLAB_ICON,
            "url": f"{branch}/{path}.ipynb",
        }
        for text, path in (("Colab", name), ("Colab, without solutions", f"student/{name}"))
    ]
    group = {"type": "group", "tooltip": "Run this chapter", "icon": "fas fa-rocket", "label": "launch-buttons"}
    context["header_buttons"].insert(0, {**group, "buttons": buttons})


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("config-inited", add_buttons, priority=100)  # before the theme reads its options
    app.connect("builder-inited", stage_mathjax)
    app.connect("doctree-read", add_index, priority=900)  # after _toc.yml has been read into the page
    app.connect("html-page-context", add_colab, priority=502)  # after the theme's own buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}

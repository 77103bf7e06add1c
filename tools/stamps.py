"""What the outputs of a notebook depend on, and how to tell that they are out of date without executing it.

A stamp is a dict of digests, stored in the notebook's metadata so that a reader can see which part changed:
`cells` (the code), `modules` (the library's modules that the code imports, directly or through others), `files`
(what it read inside the repository while it ran), `lock` (the pinned versions) and `outputs` (what is stored).
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

PACKAGE = "model_collapse"
LIBRARY = Path("lib") / PACKAGE
LOCK = "requirements.lock"
APART = "# Needed by no notebook (the group `dev` of pyproject.toml): what follows makes no chapter stale.\n"
Stamp = dict[str, Any]


def digest(content: str | bytes) -> str:
    """Return 16 hexadecimal digits that stand for this content."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def stamp(notebook: NotebookNode, root: Path, files: list[str]) -> Stamp:
    """Digest everything that the notebook depends on; `files` are relative to the repository `root`."""
    return {
        "cells": digest(json.dumps([cell.source for cell in code_cells(notebook)])),
        "modules": {name: module_digest(root, name) for name in modules(notebook, root)},
        "files": {name: file_digest(root / name) for name in sorted(files)},
        "lock": lock_digest(root / LOCK),
        "outputs": outputs_digest(notebook),
    }


def reasons_stale(stored: NotebookNode | None, source: NotebookNode, root: Path) -> list[str]:
    """Say why the stored notebook is not what executing `source` now would give; nothing if it is.

    Parameters
    ----------
    stored
        The notebook with outputs and stamp, or None where there is none yet.
    source
        The notebook as its text has it now, without outputs.
    root
        The repository.
    """
    if stored is None or "stamp" not in stored.metadata:
        return ["never executed"]
    old = stored.metadata["stamp"]
    new = stamp(source, root, list(old.get("files", {}))) | {"outputs": outputs_digest(stored)}
    words = {"cells": "code cells changed", "lock": f"{LOCK} changed", "outputs": "stored outputs were altered"}
    found = [sentence for part, sentence in words.items() if old.get(part) != new[part]]
    for kind, part in (("module", "modules"), ("file", "files")):
        before, now = old.get(part, {}), new[part]
        found += [f"{kind} {x} changed" for x in sorted({*before, *now}) if before.get(x) != now.get(x)]
    return found


# Modules: followed through their imports, and digested by what they do, not by how they are written.


def modules(notebook: NotebookNode, root: Path) -> list[str]:
    """Name the library's modules that the notebook uses, directly or through others ('__init__' is the package)."""
    to_python = TransformerManager().transform_cell  # magics and shell lines become calls
    todo = [name for cell in code_cells(notebook) for name in imported(ast.parse(to_python(cell.source)), root)]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += imported(ast.parse((root / LIBRARY / f"{name}.py").read_bytes()), root)
    return sorted(found)


def imported(tree: ast.AST, root: Path) -> Iterator[str]:
    """Yield the library's modules that this code imports, at any depth: inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = f"{PACKAGE}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            dotted = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for package, *rest in (name.split(".") for name in dotted):
            if package == PACKAGE:
                yield "__init__"
                if rest and (root / LIBRARY / f"{rest[0]}.py").exists():
                    yield rest[0]


def module_digest(root: Path, name: str) -> str:
    """Digest a module without its comments, docstrings and layout."""
    return digest(outline(ast.parse((root / LIBRARY / f"{name}.py").read_bytes())))


def outline(node: object) -> str:
    """Write a syntax tree as text, without docstrings.

    Unlike `ast.dump` it reads the same under every Python from 3.11 on: later versions add fields, which are empty
    for code that the earlier ones understand.
    """
    if isinstance(node, list):
        return "[" + ",".join(map(outline, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"}
    if "body" in fields and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        documented = ast.get_docstring(node, clean=False) is not None
        fields["body"] = node.body[1:] if documented else node.body
    return type(node).__name__ + "(" + ",".join(f"{k}={outline(v)}" for k, v in fields.items()) + ")"


# Files: what the kernel opened, as far as it lies in the repository and is neither code nor made by tools.


def watch(log: str) -> None:
    """Append the path of every file that is opened for reading from now on to the file `log`.

    This runs inside the kernel. It sees what Python opens (numpy, pandas, torch and gzip do so through Python), not
    what a compiled library maps by itself, nor what a child process reads.
    """
    import os
    import sys
    from typing import Any

    sink = os.open(log, os.O_WRONLY | os.O_APPEND)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int) and not arguments[2] & os.O_WRONLY:
            os.write(sink, os.fsencode(os.path.abspath(arguments[0])) + b"\0")

    sys.addaudithook(note)


def files_read(log: Path, root: Path, notebook: Path) -> list[str]:
    """List what the log names inside the repository, relative to it: data, weights, results, other notebooks."""
    paths = {Path(name).resolve() for name in log.read_text().split("\0") if name}
    inside = {path.relative_to(root) for path in paths if path.is_relative_to(root) and path.is_file()}
    return sorted(path.as_posix() for path in inside if root / path != notebook and is_input(root, path))


def is_input(root: Path, path: Path) -> bool:
    """Tell whether a file of the repository can be data: no code, no environment, no cache, nothing hidden."""
    made = any(part.startswith((".", "_build", "__pycache__")) or part.endswith(".egg-info") for part in path.parts)
    return not made and path.suffix not in {".py", ".pyc"} and not (root / path).is_relative_to(sys.prefix)


def file_digest(path: Path) -> str:
    """Digest a file: a notebook by its outputs, as text changes nothing for who reads them; 'absent' if it is."""
    if not path.exists():
        return "absent"
    if path.suffix == ".ipynb":
        return outputs_digest(nbformat.read(path, as_version=4))
    return digest(path.read_bytes())


def lock_digest(path: Path) -> str:
    """Digest the lock without what no notebook needs."""
    return digest(path.read_text(encoding="utf8").partition(APART)[0])


def outputs_digest(notebook: NotebookNode) -> str:
    """Digest the stored outputs and execution counts of a notebook."""
    stored = [(cell.get("execution_count"), cell.get("outputs", [])) for cell in code_cells(notebook)]
    return digest(json.dumps(stored, sort_keys=True))

"""The notebooks that Colab opens: plain text, nothing lost, one install that changes nothing which Colab has."""

import gc
import json
import os
import re
import subprocess
import sys
import sysconfig
from functools import cache
from itertools import pairwise

import nbformat
import pytest
import yaml
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbval.plugin import coalesce_streams

import colab
from book_site import pages_address
from build import ROOT, build_pages
from colab_markdown import Chapter, Pages, article
from colab_packages import LIST, conflicts, preinstalled, python_of, requirements
from comparing import failures, is_chart
from execute import THREADS, bytes_of, chapters, files_in, read_notebook
from stamps import code_cells

NAMES = [chapter.name for chapter in chapters(ROOT)]
SITE, SOURCE = "https://owner.github.io/name", "git+https://github.com/owner/name@0123abc"
RAW = re.compile(  # what only MyST understands
    r"^ *(`{3,}|:{3,})\{.*|\{[a-z]+(?::[a-z]+)?\}`.*|^:\w+:.*|^\([\w-]+\)=|\$\$ *\((?:eq|fig|thm)-[\w-]+\)|\\label\{.*"
    r"|\\(?:eq)?ref\{.*|\f.*",
    re.M,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ANCHOR = re.compile(r'<a name="([^"]+)"></a>')
NUMBERED = re.compile(r"^(?:\*\*|### |)<a name=\"[^\"]+\"></a>\*?((?:[A-Z]\w+|Fig\.) [\d.]*\d)(?: \(|\*\*|\.|$)", re.M)


@pytest.fixture(scope="module")
def editions():
    """All notebooks, by path, as they would be published from owner/name."""
    return dict(colab.editions(ROOT, SOURCE, SITE))


@pytest.fixture(params=[f"{folder}{name}" for name in NAMES for folder in ("", "student/")])
def edition(request, editions):
    return editions[f"{request.param}.ipynb"]


def stored(name):
    return read_notebook(ROOT / "book" / f"{name}.ipynb")


@cache
def page(name):
    """The built page of a chapter."""
    return article(build_pages().parent / "book" / f"{name}.html")


def texts(notebook):
    """Yield all that is read as Markdown: cells, and outputs such as claims."""
    yield from (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for cell in code_cells(notebook):
        yield from (x.data["text/markdown"] for x in cell.outputs if "text/markdown" in x.get("data", {}))


def document(notebook):
    return "\n\n".join(texts(notebook))


def test_every_chapter_is_published_twice(editions):
    assert sorted(editions) == sorted(f"{folder}{name}.ipynb" for name in NAMES for folder in ("", "student/"))


def test_notebook_is_valid(edition):
    nbformat.validate(edition)
    assert set(edition.metadata) == {"colab", "kernelspec", "language_info"}
    assert {key for cell in edition.cells for key in cell.metadata} <= {"cellView", "jupyter", "id"}


def test_no_directive_and_no_role_is_left(edition):
    assert [found[0] for found in RAW.finditer(document(edition))] == []


@pytest.mark.parametrize(
    "raw",
    [
        "```{note}",
        ":::{admonition} A",
        "see {prf:ref}`thm`",
        "({cite}`a`)",
        "text\n:label: thm",
        "(sec-a)=\n## A",
        "$$ x $$ (eq-a)",
        r"\label{a}",
        r"by \eqref{a}",
        "\fsolution",
    ],
)
def test_what_is_left_would_be_found(raw):
    assert RAW.search(raw)


def test_links_lead_to_an_anchor_in_the_notebook_or_are_absolute(edition):
    text = document(edition)
    anchors = ANCHOR.findall(text)
    assert len(anchors) == len(set(anchors))
    for link in LINK.findall(text):
        assert link.removeprefix("#") in anchors if link.startswith("#") else link.startswith("https://"), link


def test_links_to_other_chapters_lead_to_their_pages(editions):
    ids = {name: {element["id"] for element in page(name).find_all(id=True)} for name in NAMES}
    links = [link for notebook in editions.values() for link in LINK.findall(document(notebook))]
    own = [link.removeprefix(f"{SITE}/book/") for link in links if link.startswith(SITE)]
    assert own
    for link in own:
        name, _, anchor = link.partition(".html")
        assert not anchor or anchor.removeprefix("#") in ids[name], link


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_page(name, editions):
    text = document(editions[f"{name}.ipynb"])
    captions = [x.text.strip() for x in page(name).select("article .caption-number")]
    assert NUMBERED.findall(text) == captions
    assert re.findall(r"\\tag\{(.+?)\}", text) == [x.text.strip("()#") for x in page(name).select("article .eqno")]


@pytest.mark.parametrize("name", NAMES)
def test_code_and_outputs_are_kept(name, editions):
    ours = [(c.source, c.execution_count, c.outputs) for c in code_cells(stored(name))]
    assert [(c.source, c.execution_count, c.outputs) for c in code_cells(editions[f"{name}.ipynb"])[2:]] == ours


def test_beside_each_chart_is_a_picture_and_below_it_its_caption(edition):
    for cell, below in pairwise(edition.cells):
        for output in cell.get("outputs", []):
            if is_chart(output.get("data", {})):
                assert output.data["image/svg+xml"].startswith("<svg")
                assert re.match(r'<a name="fig-[\w-]+"></a>\*Fig\. [\d.]+\.\* \w', below.source)


def test_the_first_cell_installs_and_the_second_mounts_nothing_unless_asked(edition):
    first, second = edition.cells[:2]
    comment, command = first.source.splitlines()
    assert comment.startswith("# ")
    found = re.fullmatch(r'%pip install -q "model-collapse\[(\S+)\] @ (\S+)"', command)
    assert found[2] == SOURCE
    assert set(found[1].split(",")) == {"text", "figures", "runs", "mixtures", "images", "language"}
    assert first.outputs == second.outputs == []
    exec(second.source, {})  # off: it imports nothing of Colab's


@pytest.mark.parametrize("name", NAMES)
def test_the_students_edition_lacks_solutions_and_nothing_else(name, editions):
    full, student = (editions[f"{folder}{name}.ipynb"] for folder in ("", "student/"))
    text = document(stored(name))
    count = len(re.findall(r"\{solution-start\}", text))
    assert document(full).count("#### Solution of Exercise ") == count
    assert "Solution of" not in document(student)
    exercises = re.findall(r"^### .*Exercise .*$", document(student), re.M)
    assert len(exercises) == count == len(re.findall(r"\{exercise-start\}", text))
    kept = {cell.id for cell in student.cells}
    left_out = [cell for cell in full.cells if cell.id not in kept]
    assert [cell for cell in full.cells if cell.id in kept] == student.cells
    assert sum(cell.source.startswith("#### Solution of") for cell in left_out) == count
    assert sum(cell.cell_type == "code" for cell in left_out) >= count


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_closed_sections_and_nothing_else_is(name, editions):
    """Colab hides what is between a closed heading, by the id in its metadata, and the next of its level or above."""
    full, student = (editions[f"{folder}{name}.ipynb"] for folder in ("", "student/"))
    closed, hiding, hidden = full.metadata.colab.get("collapsed_sections", []), False, []
    for cell in full.cells:
        if cell.cell_type == "markdown" and re.match("#{1,4} ", cell.source):
            hiding = cell.metadata.get("id") in closed
            assert not hiding or "\n" not in cell.source  # Colab may show the rest of a heading's cell
        hidden += [cell.id] if hiding else []
    kept = {cell.id for cell in student.cells}
    assert hidden == [cell.id for cell in full.cells if cell.id not in kept]
    assert "collapsed_sections" not in student.metadata.colab


def test_the_same_commit_gives_the_same_bytes(editions):
    again = dict(colab.editions(ROOT, SOURCE, SITE))
    assert {path: bytes_of(x) for path, x in again.items()} == {path: bytes_of(x) for path, x in editions.items()}


def test_files_are_written_whole_in_the_place_of_old_ones(tmp_path, monkeypatch, editions):
    monkeypatch.setattr(colab, "editions", lambda *_: [("student/intro.ipynb", editions["intro.ipynb"])])
    (tmp_path / "_build" / "colab").mkdir(parents=True)
    (tmp_path / "_build" / "colab" / "old.ipynb").touch()
    folder = colab.write(tmp_path, SOURCE, SITE)
    assert [path.name for path in folder.rglob("*.ipynb")] == ["intro.ipynb"]
    assert not (tmp_path / "_build" / "colab.part").exists()


# Texts that cannot be made plain


@pytest.fixture
def chapter(tmp_path):
    """A chapter beside a built page on which nothing stands."""
    (tmp_path / "one.html").write_text("<article></article>")
    return Chapter("one", Pages(tmp_path, ["one"], None), {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```{table} T\n```", "the directive 'table'"),
        ("see {term}`x`", "the role 'term'"),
        ("by {prf:ref}`thm-lost`", "nothing labelled 'thm-lost'"),
    ],
)
def test_what_has_no_plain_form_stops_the_publication(text, complaint, chapter):
    with pytest.raises(ValueError, match=f"one: .*{complaint}"):
        chapter.plain(text)


def test_code_is_left_as_it_is(chapter):
    text = "`{ref}` and\n\n```python\n{x: `y`}\n```\n\nand $$x$$ (so)"
    assert chapter.plain(text) == text


def test_boxes_within_boxes(chapter):
    text = "````{note}\n```{tip} A\nx\n```\n````\nafter"
    inner = "<blockquote>\n\n**A**\n\nx\n\n</blockquote>"
    assert chapter.plain(text) == f"<blockquote>\n\n**Note**\n\n{inner}\n\n</blockquote>\nafter"


# Where the repository lives


def test_without_an_address_nothing_is_published(monkeypatch, capsys):
    monkeypatch.setattr(colab, "repository", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["colab.py"])
    assert colab.main() == 1
    assert "GITHUB_REPOSITORY" in capsys.readouterr().err


def test_the_pages_address_follows_from_the_repository():
    assert pages_address("https://github.com/Owner/name") == SITE
    assert pages_address("https://github.com/owner/Owner.github.io") == "https://owner.github.io"


def test_no_source_names_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    others = re.compile(r"(?i)owner|googlefonts|googlecolab|vega$|llmrisks")  # examples, and repositories of others
    for path in (path for path in tracked if not path.startswith("book/results/") and "/fonts/" not in path):
        text = (ROOT / path).read_bytes().decode(errors="ignore")
        found = re.findall(r"github\.com[:/]([\w-]+)/|githubusercontent\.com/([\w-]+)|([\w-]+)\.github\.io", text)
        named = {"".join(owner) for owner in found}
        assert not {owner for owner in named if not others.match(owner)}, path


def test_the_workflow_publishes_what_the_buttons_open():
    steps = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())["jobs"]["pages"]["steps"]
    commands = [step.get("run", "") for step in steps]
    assert any("make colab" in command for command in commands)
    assert any("_build/colab" in command and re.search(r"git push .* colab$", command, re.M) for command in commands)


def test_pages_of_the_contents_are_those_that_are_published():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [path.rpartition("/")[2] for path in files_in(contents)]
    assert [page for page in pages if (ROOT / "book" / f"{page}.ipynb").exists()] == NAMES


# Executed, in an environment where only pip has put the library, in a folder outside the repository


FRESH = os.environ.get("FRESH", "").replace("all", ",".join(NAMES)).split(",")
KILL = nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", id="kill")


def empty_environment(folder):
    """A virtual environment with the packages of this one, but for the library."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lock.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # the library's own .pth there does not count
    return folder / "bin" / "python"


def execute(notebook, python, folder):
    """Execute a notebook in place, in a kernel of this Python."""
    manager = AsyncKernelManager()
    manager.kernel_spec.argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client = NotebookClient(notebook, km=manager, timeout=1200, resources={"metadata": {"path": folder}})
    client.execute(env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | THREADS)


@pytest.mark.filterwarnings("ignore:.*socket", "ignore::pytest.PytestUnraisableExceptionWarning")  # of what was killed
@pytest.mark.parametrize("name", FRESH)
def test_published_notebook_runs_fresh_also_after_a_kill(name, tmp_path):
    if not name:
        pytest.skip(
            "published notebooks were not executed: FRESH=discrete does that, FRESH=all for all (make test-all)"
        )
    source = f"git+file://localhost{ROOT}@{colab.commit(ROOT)}"
    notebook = dict(colab.editions(ROOT, source, None))[f"{name}.ipynb"]
    python = empty_environment(tmp_path / "env")
    begun = nbformat.v4.new_notebook(cells=[*notebook.cells[: len(notebook.cells) // 2], KILL])
    with pytest.raises(DeadKernelError):
        execute(begun, python, tmp_path)
    gc.collect()  # the dead kernel's sockets, while this test's filter still stands
    execute(notebook, python, tmp_path)
    gc.collect()
    for cell, new in zip(code_cells(stored(name)), code_cells(notebook)[2:], strict=True):
        assert not failures(f"{name}, {cell.id}", cell, coalesce_streams(new.outputs))


KILLED = """\
import os, signal, threading, time
from pathlib import Path

def kill():
    while not list(Path("runs").glob("gmm-*/generation-005")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()"""


@pytest.mark.filterwarnings("ignore:.*socket", "ignore::pytest.PytestUnraisableExceptionWarning")  # of what was killed
def test_run_of_ones_own_goes_on_in_a_fresh_kernel_after_a_kill(tmp_path):
    """The mixtures' first cell, with another scale, and the cell that runs it: as published, and no page is built."""
    if "gmm" not in FRESH:
        pytest.skip("no run of one's own was killed: FRESH=gmm does that (make test-all)")
    first, *rest = (cell.source for cell in code_cells(stored("gmm")))
    (own,) = [source for source in rest if source.startswith("own_run(")]
    install = colab.INSTALL.format(colab.requirement(ROOT, f"git+file://localhost{ROOT}@{colab.commit(ROOT)}"))
    first = re.sub('^SCALE = "small"', 'SCALE = "paper"', first, flags=re.M)
    python = empty_environment(tmp_path / "env")
    begun, again = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        for sources in ([install, first, KILLED, own], [first, own])
    )
    with pytest.raises(DeadKernelError):
        execute(begun, python, tmp_path)
    gc.collect()  # the dead kernel's sockets, while this test's filter still stands
    execute(again, python, tmp_path)
    gc.collect()
    said = "".join(output.get("text", "") for output in again.cells[-1].outputs)
    assert re.search(r"goes on after generation \d+\n", said)
    assert "Finished: runs" in said


# Colab's own packages


def test_with_the_locks_versions_no_package_of_colab_changes():
    listed = LIST.read_text(encoding="utf8")
    assert list(conflicts(requirements(), preinstalled(listed), python_of(listed))) == []


@pytest.mark.parametrize("package", ["numpy", "torch", "typeguard"])  # typeguard: asked for by one that is added
def test_a_package_that_must_change_is_found(package):
    listed = LIST.read_text(encoding="utf8")
    old = preinstalled(listed) | {package: "0.1"}
    assert any(package in found for found in conflicts(requirements(), old, python_of(listed)))


def fake_environment(folder, listed):
    """A virtual environment in which pip finds these packages installed: their names and versions, and no more."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, version in listed.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder / "bin" / "python"


def test_pip_would_change_no_package_of_colab(tmp_path):
    """With the newest versions of what is added, as pip itself chooses them today, under this Python."""
    if os.environ.get("ONLINE") != "1":
        pytest.skip("pip was not asked, as its answer changes from day to day: ONLINE=1 does that (make test-all)")
    listed = preinstalled(LIST.read_text(encoding="utf8"))
    python, report = fake_environment(tmp_path / "colab", listed), tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--retries", "1"]
    command = [*pip, "install", "--quiet", "--dry-run", "--only-binary", ":all:", "--report", str(report)]
    done = subprocess.run([*command, *map(str, requirements())], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    added = {x["metadata"]["name"].lower() for x in json.loads(report.read_text())["install"]}
    assert {"gensim", "tyro", "vl-convert-python"} <= added
    assert not added & {*listed}, f"pip would change {sorted(added & {*listed})}"

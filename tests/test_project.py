"""The project's own files: one lock for every way in, a light core, documented names."""

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import figure
import model_collapse

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = {
    Requirement(line).name: Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
}
MODULES = [m.name for m in pkgutil.iter_modules(model_collapse.__path__)]
HEAVY = ("pandas", "altair", "vl_convert", "torch", "transformers", "datasets", "sklearn", "gensim", "IPython")
CORE = ("process", "discrete", "gaussian", "results", "data")


def requirements():
    extras = [*PROJECT["optional-dependencies"].values(), PYPROJECT["dependency-groups"]["dev"]]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]]


def test_the_lock_satisfies_every_bound_of_the_library():
    for requirement in requirements():
        (pin,) = LOCK[requirement.name].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} against the lock's {pin.version}: make lock"


def test_the_lock_pins_exactly_and_names_no_build_of_torch():
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == "==" for r in LOCK.values())
    assert "+" not in str(LOCK["torch"].specifier)
    assert not [name for name in LOCK if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_lock_holds_all_that_its_packages_need():
    """Followed through what is installed, but for the companions of torch's accelerator builds."""
    todo, seen = [r.name for r in requirements()], set()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(needed.name)
    locked = {name.lower().replace("_", "-") for name in LOCK}
    missing = [name for name in seen - locked if not name.startswith(("nvidia", "cuda", "triton"))]
    assert not missing, f"requirements.lock leaves out {missing}: make lock"


def test_conda_installs_the_same_lock():
    pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert pip == ["-r requirements.lock", "-e ."]


def test_the_environment_is_the_lock():
    wrong = []
    for name, requirement in LOCK.items():
        if requirement.marker is None or requirement.marker.evaluate():
            version = importlib.metadata.version(name).split("+")[0]
            wrong += [f"{name} {version}"] if not requirement.specifier.contains(version) else []
    assert not wrong, f"installed otherwise than locked: {wrong}; rm -rf .venv and make again"


def test_the_library_has_no_upper_bound_on_python():
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_with_numpy_and_scipy_alone(module):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import model_collapse.{module}"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def public_names():
    """All of each module, but for modules that stand behind another (`discrete_theory`): what that one offers."""
    for module in MODULES:
        if module.partition("_")[0] in MODULES and "_" in module:
            continue
        names = vars(importlib.import_module(f"model_collapse.{module}"))
        for name, thing in names.items():
            ours = getattr(thing, "__module__", "").startswith(f"model_collapse.{module}")
            offered = name in vars(importlib.import_module(f"model_collapse.{module}")).get("__all__", [name])
            if ours and offered and not name.startswith("_") and (inspect.isfunction(thing) or inspect.isclass(thing)):
                yield pytest.param(thing, id=f"{module}.{name}")


@pytest.mark.parametrize("thing", list(public_names()))
def test_public_names_have_a_docstring_with_an_example_that_runs(thing):
    assert ">>>" in (thing.__doc__ or ""), "no example in the docstring (doctest runs them)"


def python_files():
    folders = ("lib", "tools", "bench", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_no_global_seeding():
    for path in [*python_files(), *(ROOT / "book" / "text").glob("*.md")]:
        assert not re.search(r"\b(np\.random\.seed|torch\.manual_seed|random\.seed)\(", path.read_text()), path


def functions(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def length(function):
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_stay_short():
    paths = list((ROOT / "lib").rglob("*.py"))
    long = [f"{p.name}:{f.name}" for p in paths for f in functions(p) if length(f) > 40]
    assert not long, f"functions over 40 lines: {long}"


MAKE = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_documented_commands_exist(page):
    targets = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", (ROOT / page).read_text(), re.M))
    assert {"book", "test"} <= targets <= {*MAKE}, f"{page} names make targets that do not exist: {targets - {*MAKE}}"


HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def test_the_hooks_fetch_nothing_and_call_what_the_environment_has():
    checked = [sys.executable, "-m", "pre_commit", "validate-config", ROOT / ".pre-commit-config.yaml"]
    assert subprocess.run(checked, check=False).returncode == 0
    assert [repo["repo"] for repo in HOOKS] == ["local"]
    for hook in HOOKS[0]["hooks"]:
        assert hook["language"] == "system", hook
        program = hook["entry"].split()[0]
        assert program == "bash" or (ROOT / program).exists() or not (ROOT / ".venv").exists(), hook


def test_the_hook_finds_a_large_file(tmp_path):
    (entry,) = [hook["entry"] for hook in HOOKS[0]["hooks"] if hook["id"] == "large"]
    (tmp_path / "small").write_bytes(b"x" * 4_000_000)
    assert subprocess.run([*shlex.split(entry), "small"], cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "large").write_bytes(b"x" * 4_000_001)
    found = subprocess.run([*shlex.split(entry), "small", "large"], cwd=tmp_path, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"large\n")


def tree_lines():
    block = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line.split()[0] for line in block.group(1).splitlines() if line.strip()]


def test_the_file_tree_of_the_readme_is_true():
    listed = tree_lines()
    assert all(list(ROOT.glob(name)) for name in listed), "README's tree lists what does not exist"
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not known:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    folded = (
        "book/text/",
        "book/assets/fonts/",
        "book/results/",
        "lib/model_collapse/tiny_opt/",
        ".github/",
        "tests/test_",
        "README.md",
    )
    endings = ("__init__.py", "__main__.py", ".ipynb", ".typed", "pagechecks.js")
    missing = [x for x in known if x not in listed and not x.startswith(folded) and not x.endswith(endings)]
    assert not missing, f"README's tree leaves out {missing}"


MAP = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Where things are\n")[2].partition("\n### ")[0]
ROWS = re.findall(r"^\| (.+?) \| (.+) \| (.+?) \|$", MAP, re.M)[1:]


def test_the_map_leads_to_every_file_of_the_library_the_tools_and_the_pages():
    named = {name for _, files, _ in ROWS for name in re.findall(r"`([^`\s]+)`", files)}
    places = ("lib/model_collapse/*.py", "tools/*.*", "book/assets/*.*", "book/assets/scripts/*")
    files = [path for place in places for path in ROOT.glob(place) if path.is_file() and path.name != "__init__.py"]
    missing = [path.name for path in files if not any(path.match(name) for name in named)]
    assert not missing, f"no row of CONTRIBUTING's map names {missing}"


def test_the_tests_and_files_that_the_map_names_exist():
    tests = {name for *_, guards in ROWS for name in re.findall(r"`(test_\w+\.py)`", guards)}
    assert len(ROWS) > 50
    assert not [name for name in tests if not (ROOT / "tests" / name).exists()]
    unsaid = [what for what, _, guards in ROWS if "test_" not in guards and "no test" not in guards]
    assert not unsaid, f"neither a test nor 'no test': {unsaid}"
    paths = {name for _, files, _ in ROWS for name in re.findall(r"`((?:lib|tools|book|tests|bench)/[^`\s]+)`", files)}
    assert not [path for path in paths if "NAME" not in path and not list(ROOT.glob(path))]


def test_the_figure_of_the_readme_is_the_introduction_s():
    assert figure.FIGURE.read_text(encoding="utf8") == figure.stored_picture(), "make book writes it"

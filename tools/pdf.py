"""Make _build/pdf/model-collapse.pdf, the whole book on paper, from the stored outputs: `make pdf`.

Sphinx writes LaTeX (book_latex.py), XeLaTeX sets it. The same commit gives the same bytes: the date is the commit's.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from book_latex import edition
from build import FLAGS, ROOT

NAME = "model-collapse.pdf"
PROGRAMS = ["xelatex", "latexmk", "xindy", "make"]
FONTS = ["texgyrepagella-regular.otf", "texgyrepagella-math.otf", "DejaVuSansMono.ttf"]
PACKAGES = (
    "texlive-xetex texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended fonts-texgyre"
    " fonts-texgyre-math fonts-dejavu latexmk xindy make"
)
LATEX = "-interaction=nonstopmode -halt-on-error"


def missing() -> list[str]:
    """Return the programs and fonts that setting the book needs and that are not there."""
    programs = [name for name in PROGRAMS if shutil.which(name) is None]
    if programs:
        return programs
    listed = subprocess.run(["fc-list", "--format=%{file}\n"], capture_output=True, text=True, check=False).stdout
    return [name for name in FONTS if name not in listed]


def write_latex(root: Path, environment: dict[str, str]) -> Path:
    """Return the folder of the LaTeX that Sphinx wrote, made anew.

    Raises
    ------
    SystemExit
        The build gave a warning or an error; it was printed.
    """
    work = root / "_build" / "latex"
    shutil.rmtree(work, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), *FLAGS]
    command += ["--builder", "latex", "--path-output", str(work)]
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit("pdf: the build failed; the warnings above say where")
    return work / "_build" / "latex"


def build_pdf(root: Path = ROOT) -> Path:
    """Return the PDF of the book, made anew.

    Raises
    ------
    SystemExit
        A program or a font is missing, or one of the two steps failed; what is to be done was said.
    """
    if names := missing():
        raise SystemExit(f"pdf: no {', '.join(names)}; on Debian: apt-get install --no-install-recommends {PACKAGES}")
    dated = {"SOURCE_DATE_EPOCH": str(edition(root).time), "FORCE_SOURCE_DATE": "1"}
    environment = os.environ | dated | {"PYTHONPATH": str(ROOT / "lib")}  # the library of this tree
    folder = write_latex(root, environment)
    command = ["make", "all-pdf", "LATEXMKOPTS=-xelatex -silent", f"LATEXOPTS={LATEX}"]
    if subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode:
        raise SystemExit(f"pdf: LaTeX failed:\n{errors(folder / NAME.replace('.pdf', '.log'))}")
    made = root / "_build" / "pdf" / NAME
    made.parent.mkdir(parents=True, exist_ok=True)
    (folder / NAME).replace(made)
    return made


def errors(log: Path) -> str:
    """Return the errors of a log of LaTeX, with the lines that follow each."""
    text = log.read_text(encoding="utf8", errors="replace") if log.exists() else f"{log} was not written"
    return "\n".join(re.findall(r"^!.*(?:\n.*){0,6}", text, re.M)) or text[-1000:]


def main() -> None:
    """Build, and print the file to open."""
    print(f"open {build_pdf().as_uri()}")


if __name__ == "__main__":
    main()

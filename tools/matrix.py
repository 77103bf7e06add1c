"""Show whether the outputs hold on other processors: on 1, 2 and 4 threads, and without vector instructions.

    python tools/matrix.py [CHAPTER ...]

Prints a Markdown table: for each setting and chapter whether every output is the stored one within its tolerance, and
the largest relative distance of a number from the stored one. What differs is printed after it; then the exit status
is 1. Nothing is written.
"""

import math
import os
import platform
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from nbformat import NotebookNode

from execute import ROOT, THREADS, Chapter, NotExecutedError, chosen, execute, read_notebook, read_twin
from stamps import code_cells

sys.path.append(str(ROOT / "tests"))
from comparing import Tolerance, differences, failures

EXACT = Tolerance(rtol=0.0, atol=0.0, reason="to measure the distance")
FOUND = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
# What libraries choose by processor: numpy's loops, OpenBLAS, torch, oneDNN, and the C library's exp, log and pow.
NO_AVX512 = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in FOUND if "512" in name or name == "X86_V4"),
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL",
}
NO_AVX = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(FOUND),
    "OPENBLAS_CORETYPE": "Nehalem",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
}
SETTINGS = {f"{n} threads" if n > 1 else "1 thread": dict.fromkeys(THREADS, str(n)) for n in (1, 2, 4)}
if platform.machine() == "x86_64":
    SETTINGS |= {"1 thread, no AVX-512": NO_AVX512, "1 thread, no AVX and no FMA": NO_AVX}
# OpenBLAS takes no more threads from the environment than there are cores, but does when it is told.
PRELUDE = """
import os, numpy, scipy.linalg, threadpoolctl
threadpoolctl.threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))
del os, numpy, scipy, threadpoolctl
"""
# A setting that did not take would pass without a word: what numpy, BLAS and the C library say about themselves.
PROBE = """
import hashlib, math, numpy, threadpoolctl
blas = threadpoolctl.threadpool_info()[0]
simd = numpy.show_config(mode="dicts")["SIMD Extensions"].get("found")
libm = hashlib.sha256(repr([math.exp(k * 7.31e-4) for k in range(9999)]).encode()).hexdigest()[:4]
print(f"numpy {simd[-1] if simd else 'baseline'}, BLAS {blas['architecture']} x{blas['num_threads']}, exp {libm}")
"""


class Result(NamedTuple):
    """How one chapter fared under one setting."""

    outputs: int  # that the chapter stores
    failed: list[str]  # descriptions of what differs
    differing: int  # number of outputs that differ
    distance: float  # largest relative distance of a number, infinite if something else differs

    def __str__(self) -> str:
        if self.failed:
            return f"**{self.differing} of {self.outputs} differ**"
        return "identical" if self.distance == 0 else f"passes ({self.distance:.0e})"


def in_effect(environment: dict[str, str]) -> str:
    """Say what a process under this setting finds."""
    command = [sys.executable, "-c", PRELUDE + PROBE]
    done = subprocess.run(command, env={**os.environ, **THREADS, **environment}, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def compare(chapter: Chapter, setting: str, environment: dict[str, str]) -> Result:
    """Execute a chapter under a setting, and compare its outputs with the stored ones."""
    stored, again = read_notebook(chapter.notebook), read_twin(chapter.twin)
    if stored is None or [c.source for c in code_cells(stored)] != [c.source for c in code_cells(again)]:
        sys.exit(f"{chapter.name} is stale: make book CHAPTER={chapter.name}")
    pairs = list(zip(code_cells(stored), code_cells(again), strict=True))
    total = sum(len(cell.outputs) for cell, _ in pairs)
    try:
        execute(again, chapter, PRELUDE, **environment)
    except NotExecutedError as error:
        return Result(total, [f"{chapter.name}, {setting}: {error}"], total, math.inf)
    said = [failures(f"{chapter.name}, {setting}, {old.id}", old, new.outputs) for old, new in pairs]
    compared = [pair for pair in pairs if "machine" not in pair[0].metadata.get("tags", [])]
    distances = [x.relative for old, new in compared for x in differences(old.outputs, new.outputs, EXACT)]
    differing = sum(count_differing(old, new) for old, new in compared)
    return Result(total, [line for lines in said for line in lines], differing, max(distances, default=0.0))


def count_differing(old: NotebookNode, new: NotebookNode) -> int:
    """Count a cell's outputs that are not the stored ones within its tolerance."""
    found = differences(old.outputs, new.outputs, Tolerance.of(old.metadata))
    return len({difference.place.split(",")[0] for difference in found})


def main() -> int:
    """Print the table, then what differs; return the exit status."""
    pages = chosen(sys.argv[1:], ROOT)
    print(f"| setting | in effect | {' | '.join(chapter.name for chapter in pages)} |")
    print("|---" * (len(pages) + 2) + "|", flush=True)
    failed: list[str] = []
    for setting, environment in SETTINGS.items():
        results = [compare(chapter, setting, environment) for chapter in pages]
        failed += [line for result in results for line in result.failed]
        print(f"| {setting} | {in_effect(environment)} | {' | '.join(map(str, results))} |", flush=True)
    print("\n".join(["", *failed]))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

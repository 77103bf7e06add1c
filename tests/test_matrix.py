"""The settings of the matrix take effect: a setting that is ignored would pass without a word."""

import platform
import subprocess
import sys

import pytest

import matrix


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_is_obeyed(threads: int) -> None:
    name = f"{threads} threads" if threads > 1 else "1 thread"
    assert f" x{threads}," in matrix.in_effect(matrix.SETTINGS[name])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of vector instructions are those of x86-64")
def test_vector_instructions_are_withheld() -> None:
    assert "512" not in matrix.in_effect(matrix.NO_AVX512)
    assert matrix.in_effect(matrix.NO_AVX).startswith("numpy baseline, BLAS Nehalem x1")


def test_an_unknown_chapter_is_one_line() -> None:
    done = subprocess.run([sys.executable, matrix.__file__, "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no chapter none; there are ")
    assert len(done.stderr.splitlines()) == 1

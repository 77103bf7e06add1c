"""Time the simulators against the loops that a reader would write: `make bench`, one thread, one run.

A ratio says how many times longer the loop takes; "the floor" is the random draws alone, which no simulation that
makes them can undercut.
"""

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy is imported

import platform  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from bench import discrete, gaussian, gmm, language, vae  # noqa: E402


def processor() -> str:
    """Name the processor, where the system tells."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Print every measurement as it is made."""
    print(f"{processor()}, Python {platform.python_version()}, numpy {np.__version__}, one thread")
    for module in (discrete, gaussian, gmm, vae, language):
        for row in module.rows():
            print(row, flush=True)


if __name__ == "__main__":
    main()

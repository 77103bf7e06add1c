"""Let pytest execute every notebook and compare all of its outputs with the stored ones (see tests/comparing.py).

At the end it reports how soon the pages showed something.
"""

import os
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from comparing import failures
from execute import THREADS

for name, count in THREADS.items():
    os.environ.setdefault(name, count)  # kernels inherit it; tools/matrix.py sets other counts

PAINT = "first contentful paint, ms"  # tests/test_pages.py records it under this name


class Cell(IPyNbCell):
    """A code cell whose outputs are compared by our rules; no comment or tag can switch that off."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments | {"options": defaultdict(bool, check=True)})
        self.output_timeout = 60

    def compare_outputs(self, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
        """Compare the new outputs with the stored ones; what nbval then prints stands in `comparison_traceback`."""
        where = f"{self.path.relative_to(self.config.rootpath)}, code cell {self.cell_num} ({self.cell.get('id')})"
        self.comparison_traceback = failures(where, {**self.cell, "outputs": ref}, test)
        return not self.comparison_traceback

    def runtest(self) -> None:
        """Execute and compare; a cell that was never executed has nothing to be compared with, and fails."""
        super().runtest()
        if self.cell.execution_count is None:
            self.raise_cell_error("has no execution count: it was never executed, or its outputs were cut out")


class Notebook(IPyNbFile):
    """A notebook, with our cells."""

    def collect(self) -> Any:
        """Yield the code cells."""
        for cell in super().collect():
            yield Cell.from_parent(self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    """Put our notebooks in the place of nbval's."""
    found = yield
    return [Notebook.from_parent(parent, path=file_path) if isinstance(x, IPyNbFile) else x for x in found]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report the times at which pages first showed something: too uneven between machines to be judged."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    paints = {r.nodeid: value for r in reports for key, value in r.user_properties if key == PAINT and value}
    if paints:
        slowest = max(paints, key=paints.__getitem__)
        terminalreporter.write_line(
            f"{PAINT}: median {median(paints.values()):.0f} of {len(paints)} pages, "
            f"slowest {paints[slowest]:.0f} ({slowest.rpartition('[')[2].rstrip(']')})"
        )

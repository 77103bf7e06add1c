"""Open the built pages in headless Chromium, as files or from this machine, with everything else out of reach."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotInTime

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# True once MathJax is done and each chart that is not in a closed part is drawn.
READY = """() => (!window.MathJax?.startup || window.pageMathReady || (MathJax.startup.promise.then(
    () => { window.pageMathReady = true; }), false))
  && [...document.querySelectorAll("div.chart")].every((c) => !c.checkVisibility() || c.classList.contains("drawn"))"""


def find() -> str | None:
    """Return the path of the system's Chromium or Chrome, None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Run the browser, with an empty profile.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    path = find()
    if path is None:
        raise FileNotFoundError(f"no browser: install one of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on 127.0.0.1, and give its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def settle(page: Page, seconds: float = 15) -> bool:
    """Wait until formulas and charts are there; False where some are not after the given time."""
    try:
        page.wait_for_function(READY, timeout=1000 * seconds)
    except NotInTime:
        return False
    return True

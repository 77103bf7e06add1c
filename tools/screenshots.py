"""Picture every page for a person to look at: light, dark, as wide as a phone, and printed (a PDF).

usage: python tools/screenshots.py [PAGE ...]      such as discrete; all pages without a name
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser

import browser
from build import build_pages

FORMS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}


def picture(chromium: Browser, page_file: Path, target: Path) -> None:
    """Write ``target``-light.png, -dark.png, -phone.png and -print.pdf of one page."""
    for form, options in FORMS.items():
        with chromium.new_context(**options) as context:
            page = context.new_page()
            page.goto(page_file.as_uri())
            browser.settle(page)
            page.screenshot(path=f"{target}-{form}.png", full_page=True)
            if form == "light":
                page.pdf(path=f"{target}-print.pdf", format="A4")


def main() -> None:
    """Picture the pages named on the command line, or all."""
    html = build_pages().parent
    folder = html.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    with browser.launched() as chromium:
        pages = [*sorted(html.glob("book/*.html")), html / "genindex.html", html / "search.html"]
        for page_file in pages:
            if not sys.argv[1:] or page_file.stem in sys.argv[1:]:
                picture(chromium, page_file, folder / page_file.stem)
    print(f"pictures in {folder}")


if __name__ == "__main__":
    main()

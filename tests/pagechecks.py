"""What may be wrong with a page in a browser: each check returns its faults, a line each (none for a good page)."""

import re
from functools import cache
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import BrowserContext, Page, Request, Route

from browser import settle

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
PAINT = "first contentful paint, ms"  # the name under which tests record it, for the report at the end (conftest.py)
CONTRAST = 4.5  # of text to its background: WCAG 2.2, 1.4.3

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")  # the package is used as a carrier of axe-core alone
GRAVE = ("serious", "critical")
WORDS = re.compile(r"\w+\W+\w+")  # two at least

PROBES = (Path(__file__).parent / "pagechecks.js").read_text(encoding="utf8").rstrip()

# After these a page has noticed a change of its size, or of a control.
NEXT_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def watched(context: BrowserContext, base: str) -> tuple[Page, list[str]]:
    """Return a new page that can reach nothing but `base`, and the list to which it adds what it complains of."""
    page, faults = context.new_page(), []

    def guard(route: Route, request: Request) -> None:
        if request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            faults.append(f"a request to {request.url}")
            route.abort()

    page.route("**/*", guard)
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("warning", "error") else None)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("response", lambda r: faults.append(f"status {r.status}: {r.url}") if r.status >= 400 else None)
    return page, faults


def standing(page: Page) -> list[str]:
    """Look at a page as it comes up: charts, formulas, images, leftovers of the source."""
    return page.evaluate(f"{PROBES}.standing()")


def narrow(page: Page) -> list[str]:
    """Look at it on a phone."""
    page.set_viewport_size(PHONE)
    page.evaluate(NEXT_FRAMES)
    settle(page)
    faults = page.evaluate(f"{PROBES}.wide()") + page.evaluate(f"{PROBES}.cut()")
    page.set_viewport_size(DESK)
    return faults


def luminance(colour: list[int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in colour[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: list[int], paper: list[int]) -> float:
    """Contrast ratio of two opaque colours, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)


def show(page: Page, theme: str) -> None:
    """Change the reader's system to light or dark, and wait until the page has followed."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("(theme) => document.documentElement.dataset.theme === theme", arg=theme)


def themed(page: Page) -> list[str]:
    """Look at the charts in light, then in dark: their words must follow the page and stay readable."""
    faults, inks = [], {}
    for theme in ("light", "dark"):
        show(page, theme)
        guides = page.evaluate(f"{PROBES}.guides()")
        inks[theme] = [guide["ink"] for guide in guides]
        pale = [g for g in guides if contrast(g["ink"], g["paper"]) < CONTRAST]
        faults += [f"{theme}: chart {g['chart']}: '{g['text']}' is hardly readable ({g['ink']})" for g in pale[:3]]
    if inks["light"] and inks["light"] == inks["dark"]:
        faults.append("charts look the same in light and dark")
    return faults


def opened(page: Page) -> list[str]:
    """Open every solution and every other closed part: what is inside must come up."""
    for button in page.query_selector_all("button.toggle-button-hidden"):
        button.click()
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    left = page.locator(".toggle-hidden, details:not([open])").count()
    settle(page)
    return ([f"{left} closed parts do not open"] if left else []) + standing(page)


def answering(page: Page) -> list[str]:
    """Move every slider and choose from every list below a chart: the chart must change."""
    faults = []
    for control in page.query_selector_all(".chart :is(input[type=range], select)"):
        picture = control.evaluate_handle("(e) => e.closest('.chart').querySelector('svg.marks')").as_element()
        before = picture.inner_html()
        start = control.input_value()
        control.press("End")
        if control.input_value() == start:
            control.press("Home")
        page.evaluate(NEXT_FRAMES)
        if picture.inner_html() == before:
            faults.append("a control below a chart changes nothing")
    return faults


def printed(page: Page) -> list[str]:
    """Print it from a dark screen: in light colours, without bars and buttons, with solutions open."""
    show(page, "dark")
    page.emulate_media(media="print")
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    faults = page.evaluate(f"{PROBES}.printed()")
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    show(page, "light")
    return faults


def unscripted(context: BrowserContext, address: str) -> list[str]:
    """Look at it without JavaScript: the stored picture of each chart must be there, with its text alternative."""
    page = context.new_page()
    page.goto(address)
    charts, pictures = page.locator("div.chart").count(), page.locator("div.chart img[alt]").all()
    shown = [p for p in pictures if p.evaluate("async (i) => (await i.decode(), i.naturalWidth > 0)")]
    return [] if len(shown) == charts else [f"without scripts {charts - len(shown)} charts have no picture"]


def described(page: Page) -> list[str]:
    """Ask what a screen reader finds in each chart: one image with a description; the keyboard reaches each control."""
    faults = []
    for i, chart in enumerate(page.locator("div.chart:visible").all(), 1):
        images = chart.get_by_role("img")  # as the accessibility tree has it: nothing hidden, nothing inside an image
        if images.count() != 1 or chart.get_by_role("img", name=WORDS).count() != 1:
            faults.append(f"chart {i} is {images.count()} images to a screen reader, not one with a description")
        for control in chart.locator("input, select").all():
            control.focus()
            if not control.evaluate("(e) => e === document.activeElement && e.tabIndex >= 0"):
                faults.append(f"chart {i}: the keyboard does not reach its control")
    return faults


@cache
def axe() -> str:
    """Return axe-core's script."""
    return AXE.read_text(encoding="utf8")


def accessible(page: Page) -> list[str]:
    """Let axe-core look at the page, in light, in dark and as on a phone: what is serious or critical is a fault.

    All three are one document: in dark it is the colours that differ, on a phone it is what must scroll.
    """
    page.evaluate(axe())
    faults = violations(page, "light")
    show(page, "dark")
    faults += violations(page, "dark", "color-contrast", "link-in-text-block")
    show(page, "light")
    page.set_viewport_size(PHONE)
    page.evaluate(NEXT_FRAMES)
    settle(page)
    faults += violations(page, "phone", "scrollable-region-focusable", "target-size")
    page.set_viewport_size(DESK)
    return faults


def violations(page: Page, where: str, *rules: str) -> list[str]:
    """Return what axe-core finds of these rules (all of WCAG's A and AA, and good practice, without any)."""
    page.evaluate("() => document.getAnimations().forEach((a) => a.finish())")  # no colour on its way to another
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": list(rules)} if rules else {})
    faults = []
    for found in page.evaluate("(options) => axe.run(options).then((r) => r.violations)", options):
        places = [f"{node['target'][-1]}: {node['html'][:90]}" for node in found["nodes"]]
        if found["impact"] in GRAVE:
            several = f"{found['id']}, {len(places)} places"
            faults.append(f"{where}: {found['impact']}: {found['help']} ({several}): {'; '.join(places[:3])}")
    return faults


def cost(page: Page) -> tuple[int, float | None]:
    """Return what the page and all that it loaded took, in bytes, and when it first showed something, in ms.

    It must have been served: for files the browser counts no bytes.
    """
    spent = page.evaluate(f"{PROBES}.cost()")
    return spent["bytes"], spent["paint"]


PRESSED = """async (buttons) => {
    const texts = [];
    for (const button of buttons) {
        await navigator.clipboard.writeText("nothing was copied");
        button.click();
        texts.push(await navigator.clipboard.readText());
    }
    return texts;
}"""


def copied(page: Page, blocks: str) -> list[str]:
    """Press each button that copies, in the blocks that a selector names; return what then is in the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page.locator(blocks).locator("button.copybtn").evaluate_all(PRESSED)

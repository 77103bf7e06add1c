// Looks at a page from within (see pagechecks.py): an expression whose value holds the looks.
({
  /** Faults of the page as it stands, parts that are closed left out. */
  standing() {
    const faults = [];
    for (const [i, chart] of document.querySelectorAll("div.chart").entries()) {
      if (!chart.checkVisibility()) continue;
      const svg = chart.querySelector("svg.marks");
      const box = svg?.getBoundingClientRect();
      if (!svg) faults.push(`chart ${i + 1} is not drawn`);
      else if (box.width < 100 || box.height < 50 || !svg.querySelector("[class*=role-mark] > *"))
        faults.push(`chart ${i + 1} is empty: ${box.width} x ${box.height} pixels`);
      else if (svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-label"))
        faults.push(`chart ${i + 1} has no text alternative`);
    }
    faults.push(...this.cut());
    for (const e of document.querySelectorAll("mjx-merror")) faults.push("broken formula: " + e.textContent);
    const formulas = [...document.querySelectorAll("span.math, div.math")];
    const missing = formulas.filter((formula) => !formula.querySelector("mjx-container")).length;
    if (missing) faults.push(`${missing} formulas are not drawn`);
    for (const i of document.images) if (i.complete && !i.naturalWidth) faults.push("broken image: " + i.src);
    const article = document.querySelector("article")?.cloneNode(true);
    for (const e of article?.querySelectorAll("pre, code, script, style, noscript, svg, .math") ?? []) e.remove();
    for (const [raw] of article?.textContent.matchAll(/\S*(\$|`|:::|\{[a-z:]+\})\S*/g) ?? [])
      faults.push("raw source in the text: " + raw);
    return faults;
  },

  /** Words of charts that reach beyond their picture. */
  cut() {
    const charts = [...document.querySelectorAll(".chart svg.marks")].filter((svg) => svg.checkVisibility());
    return charts.flatMap((svg) => {
      const room = svg.getBoundingClientRect();
      const outside = (box) => box.left < room.left - 1 || box.right > room.right + 1 || box.bottom > room.bottom + 1;
      const words = [...svg.querySelectorAll("text")].filter((text) => outside(text.getBoundingClientRect()));
      return words.slice(0, 2).map((text) => `cut off at the edge of a chart: '${text.textContent}'`);
    });
  },

  /** What makes a page wider than the window, without a box around it that scrolls. */
  wide() {
    const width = document.documentElement.clientWidth;
    if (document.scrollingElement.scrollWidth <= width) return [];
    const scrolls = (e) =>
      e && e !== document.body && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
    const outside = (e) => e.checkVisibility() && e.getBoundingClientRect().right > width + 1;
    const guilty = [...document.body.querySelectorAll("*")].filter((e) => outside(e) && !scrolls(e.parentElement));
    const names = guilty.slice(0, 3).map((e) => e.outerHTML.slice(0, 90)).join(" | ");
    return [`scrolls sideways at ${width} pixels: ${names}`];
  },

  /** Bytes that the page and all that it loads took on their way, and milliseconds until its first content was seen. */
  async cost() {
    await document.fonts.ready;
    const loaded = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind));
    const bytes = loaded.reduce((sum, entry) => sum + entry.transferSize, 0);
    return { bytes, paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null };
  },

  /** What does not belong on paper. */
  printed() {
    const bars = ".bd-sidebar-primary, .bd-sidebar-secondary, .header-article, .copybtn, .toggle-button";
    const any = (selector, test) => [...document.querySelectorAll(selector)].some(test);
    return [
      document.documentElement.dataset.theme !== "light" && "prints dark",
      any(".toggle-hidden, details:not([open], .hide)", () => true) && "prints with closed parts",
      any(bars, (e) => e.checkVisibility()) && "prints bars or buttons",
    ].filter(Boolean);
  },

  /** The words around the charts (axes, legends), with their colour and the colour behind them as [r, g, b]. */
  guides() {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      return [...pen.getImageData(0, 0, 1, 1).data];
    };
    const behind = (e) => {
      const colour = e ? rgba(getComputedStyle(e).backgroundColor) : [255, 255, 255, 255];
      return colour[3] === 255 ? colour : behind(e.parentElement);
    };
    const shown = (text) => text.textContent.trim() && getComputedStyle(text).opacity > 0;
    return [...document.querySelectorAll(".chart svg.marks")].flatMap((svg, i) => {
      const paper = behind(svg).slice(0, 3);
      const texts = [...svg.querySelectorAll("[class*=label] text, [class*=title] text")].filter(shown);
      const ink = (text) => rgba(getComputedStyle(text).fill).slice(0, 3);
      return texts.map((text) => ({ chart: i + 1, text: text.textContent, ink: ink(text), paper }));
    });
  },
})

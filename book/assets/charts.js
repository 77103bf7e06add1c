// Draws the charts of a page with Vega from the build; their colours are the style sheet's (book.css).
// A chart is drawn when it first has a width, so that one in a closed solution waits until it is opened.
(() => {
  const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: "book" } };

  // Does all that is written around the chart fit its width?
  const fits = (chart) => {
    const right = chart.querySelector("svg").getBoundingClientRect().right + 1;
    const guides = chart.querySelectorAll(".role-legend, .role-axis-title");
    return [...guides].every((guide) => guide.getBoundingClientRect().right <= right);
  };

  // If legends don't fit side by side, they stand one below the other; then their entries in fewer and fewer columns.
  const STACKED = { layout: { top: { anchor: "start", direction: "vertical" } } };
  const arrangements = [{}, STACKED, ...[3, 2, 1].map((columns) => ({ ...STACKED, columns }))];
  const PHONE = 480; // pixels: below, side by side is not even tried

  // An axis' title that is longer than its axis goes on in a second line.
  const LETTER = 7; // pixels, in the mean
  const lines = (title, room) => {
    const done = [];
    for (const word of title.split(" "))
      if (done.length && (done.at(-1) + word).length * LETTER < room) done.push(`${done.pop()} ${word}`);
      else done.push(word);
    return done;
  };

  // The specification with its titles in lines, and its legends in so many columns.
  const adapted = (node, rooms, columns) => {
    if (Array.isArray(node)) return node.map((item) => adapted(item, rooms, columns));
    if (node === null || typeof node !== "object") return node;
    const entries = Object.entries(node).map(([key, value]) => {
      if (key === "datasets" || key === "data") return [key, value];
      const inner = adapted(value, rooms, columns);
      if (key === "legend" && inner && columns) inner.columns = columns;
      if (key in rooms && typeof inner?.title === "string") inner.title = lines(inner.title, rooms[key]);
      return [key, inner];
    });
    return Object.fromEntries(entries);
  };

  // One image with one description for a screen reader, instead of a label for each mark and a second one around all.
  // A small one with a width of its own may shrink to a phone's; a large one would become illegible, and scrolls.
  const present = (view, text) => {
    for (const name of ["role", "aria-roledescription", "aria-label"]) view.container().removeAttribute(name);
    const svg = view.container().querySelector("svg");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", text);
    svg.classList.toggle("small", svg.clientWidth < 500);
  };

  const PADDING = { left: 5, top: 5, bottom: 5, right: 18 }; // right: half of an axis' last number
  const arranged = (spec, width, legend) => {
    const { config, ...rest } = adapted(spec, { x: width, y: spec.height ?? 300 }, legend.columns);
    const axisXDiscrete = { labelOverlap: true, ...config?.axisXDiscrete }; // where names crowd, every other is left out
    return { padding: PADDING, ...rest, config: { ...config, axisXDiscrete, legend: { ...config?.legend, ...legend } } };
  };

  const views = new Map();
  const draw = async (chart) => {
    const spec = JSON.parse(chart.querySelector("script").textContent);
    const width = spec.width === "container" ? chart.clientWidth - 60 : Infinity; // 60: the other axis
    const place = chart.querySelector(".vega-embed") ?? chart.appendChild(document.createElement("div"));
    for (const legend of arrangements.slice(chart.clientWidth < PHONE ? 1 : 0)) {
      const { view } = await vegaEmbed(place, arranged(spec, width, legend), options);
      views.set(chart, view);
      present(view, spec.description ?? "");
      if (fits(chart)) break;
    }
  };

  // Draw a chart that has a new width, or only let it follow, if it still fits (a slider then keeps its place).
  const widths = new Map();
  const last = new Map(); // of each chart the last thing to do, so that one is done after the other
  const refresh = async (chart) => {
    await views.get(chart)?.runAsync(); // it is following
    if (!views.has(chart) || !fits(chart)) await draw(chart);
    chart.classList.add("drawn");
  };
  const follow = (charts) => {
    window.dispatchEvent(new Event("resize")); // what Vega listens to
    for (const chart of charts) last.set(chart, Promise.resolve(last.get(chart)).then(() => refresh(chart)));
  };
  const observer = new ResizeObserver((entries) => {
    const printing = matchMedia("print").matches; // what is drawn is then scaled (print.css)
    const changed = entries.filter(
      ({ target, contentRect: { width } }) => width && width !== widths.get(target) && !(printing && views.has(target)),
    );
    for (const { target, contentRect } of changed) {
      widths.set(target, contentRect.width);
      target.classList.remove("drawn");
    }
    if (changed.length) requestAnimationFrame(() => follow(changed.map((e) => e.target)));
  });
  for (const chart of document.querySelectorAll("div.chart")) observer.observe(chart);
})();

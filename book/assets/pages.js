// Small services to every page: printing in light colours with solutions open, long formulas that scroll, and what the
// keyboard and screen readers need.
(() => {
  // Paper is white, and cannot be opened; but code that is hidden stays so. All is put back afterwards.
  const root = document.documentElement;
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    for (const closed of document.querySelectorAll("details:not([open], .hide)")) {
      closed.open = true;
      closed.dataset.printed = "";
    }
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const opened of document.querySelectorAll("details[data-printed]")) {
      opened.open = false;
      delete opened.dataset.printed;
    }
  });

  // A formula within a line that is wider than its paragraph scrolls by itself (only such: it shifts the baseline).
  const markWide = () => {
    for (const formula of document.querySelectorAll("mjx-container:not([display])")) {
      formula.classList.remove("wide");
      const line = formula.closest("p, li, td, th, dd, figcaption, h1, h2, h3");
      if (line && formula.offsetWidth > line.clientWidth) formula.classList.add("wide");
    }
  };
  window.addEventListener("load", () => window.MathJax?.startup?.promise.then(markWide));
  window.addEventListener("resize", markWide);

  // What scrolls in itself can be reached by the keyboard, for as long as it does.
  const boxes = "mjx-container, div.math, pre, .chart, .cell_output, .cell_output > .output, .pst-scrollable-table-container";
  const reach = ({ target }) => {
    const scrolls = target.scrollWidth > target.clientWidth && /auto|scroll/.test(getComputedStyle(target).overflowX);
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  };
  const observer = new ResizeObserver((entries) => entries.forEach(reach)); // also when it is opened, or drawn
  const watch = () => document.querySelectorAll(boxes).forEach((box) => observer.observe(box));
  window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(watch));

  // The triangles of the contents, which the theme leaves without a name.
  for (const triangle of document.querySelectorAll(".bd-sidebar-primary summary:not([aria-label])")) {
    const above = triangle.closest("li")?.querySelector("a")?.textContent.trim() ?? "here";
    triangle.setAttribute("aria-label", `Pages below ${above}`);
  }
})();

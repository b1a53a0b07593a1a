"use strict";
(() => {
  const root = document.documentElement;

  // Theme: follows the system until the reader chooses.
  const toggle = document.querySelector("[data-theme-toggle]");
  toggle?.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Copy buttons take the text of the block beside them.
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const block = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(block.innerText);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(block);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // Gallery and preview lists: one filter at a time, and a search over the visible text.
  const gallery = document.querySelector("[data-gallery]");
  if (gallery) {
    const items = [...gallery.children].map((node) => ({ node, kind: node.dataset.kind, text: node.textContent.toLowerCase() }));
    const buttons = [...document.querySelectorAll("[data-filter]")];
    const search = document.querySelector("[data-search]");
    const status = document.querySelector("[data-status]");
    const none = document.querySelector("[data-none]");
    let wanted = "all";
    const show = () => {
      const needle = (search?.value ?? "").trim().toLowerCase();
      let shown = 0;
      for (const { node, kind, text } of items) {
        const fits = (wanted === "all" || kind === wanted) && text.includes(needle);
        node.hidden = !fits;
        shown += fits;
      }
      none.hidden = shown > 0;
      status.textContent = `${shown} of ${items.length} samples shown`;
    };
    for (const button of buttons) {
      button.addEventListener("click", () => {
        wanted = button.dataset.filter;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        show();
      });
    }
    search?.addEventListener("input", show);
  }

  // Charts: a crosshair that follows the pointer or the arrow keys, with the text of the column's title.
  for (const chart of document.querySelectorAll("svg.chart")) {
    const columns = [...chart.querySelectorAll(".hit")];
    if (!columns.length) continue;
    const box = chart.closest("figure");
    const line = document.createElementNS(chart.namespaceURI, "line");
    line.setAttribute("class", "cross");
    line.setAttribute("y1", chart.dataset.top);
    line.setAttribute("y2", chart.dataset.bottom);
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    const texts = columns.map((column) => column.querySelector("title").textContent);
    for (const column of columns) column.querySelector("title").remove(); // the tip takes its place
    let at = -1;
    const move = (index) => {
      at = index;
      const x = columns[index].dataset.x;
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      chart.append(line);
      tip.textContent = texts[index];
      box.append(tip);
      const area = chart.getBoundingClientRect(), outer = box.getBoundingClientRect();
      const left = area.left - outer.left + (x / chart.viewBox.baseVal.width) * area.width;
      const half = tip.offsetWidth / 2 + 4;
      tip.style.left = `${Math.min(Math.max(left, half), outer.width - half)}px`;
      tip.style.top = `${area.top - outer.top - 6}px`;
    };
    const leave = () => { line.remove(); tip.remove(); at = -1; };
    columns.forEach((column, index) => column.addEventListener("pointerenter", () => move(index)));
    chart.addEventListener("pointerleave", leave);
    chart.tabIndex = 0;
    chart.addEventListener("focus", () => { if (at < 0) move(columns.length - 1); });
    chart.addEventListener("blur", leave);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -columns.length, End: columns.length }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      move(Math.min(Math.max(at + step, 0), columns.length - 1));
    });
  }
})();

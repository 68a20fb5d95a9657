"use strict";
// Marks the rows of source, PTX and SASS that belong together; without it the page still reads and its links still lead.
for (const views of document.querySelectorAll(".views")) {
  const panes = [...views.querySelectorAll(".scroll")];
  const said = views.previousElementSibling;
  const rowsOf = pane => [...pane.querySelectorAll("tr[data-s]")];
  const chosen = new Map();
  const belongs = (row, other) =>
    row.dataset.p && other.dataset.p ? row.dataset.p === other.dataset.p : row.dataset.s && row.dataset.s === other.dataset.s;
  const show = (pane, row) => {
    const middle = row.offsetTop - pane.clientHeight / 2;
    if (row.offsetTop < pane.scrollTop + 30 || row.offsetTop > pane.scrollTop + pane.clientHeight - 40) pane.scrollTop = middle;
  };
  const choose = (pane, row) => {
    for (const old of views.querySelectorAll("tr.on, tr.one")) old.classList.remove("on", "one");
    row.classList.add("one");
    const parts = [];
    for (const other of panes) {
      const found = rowsOf(other).filter(r => r === row || belongs(row, r));
      for (const r of found) r.classList.add("on");
      if (found.length) show(other, other === pane ? row : found[0]);
      chosen.set(other, other === pane ? row : found[0] || chosen.get(other));
      parts.push(`${found.length} in ${other.getAttribute("aria-label")}`);
    }
    said.textContent = `Line ${row.cells[0].textContent} of ${pane.getAttribute("aria-label")}; rows that belong to it: ${parts.join(", ")}.`;
  };
  for (const pane of panes) {
    pane.addEventListener("click", event => {
      const row = event.target.closest("tr[data-s]");
      if (row) choose(pane, row);
    });
    pane.addEventListener("keydown", event => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const rows = rowsOf(pane);
      const at = rows.indexOf(chosen.get(pane));
      const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
      if (next) choose(pane, next);
    });
  }
  const arrive = () => {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const pane = row && row.closest(".scroll");
    if (pane && views.contains(pane)) choose(pane, row);
  };
  addEventListener("hashchange", arrive);
  arrive();
}

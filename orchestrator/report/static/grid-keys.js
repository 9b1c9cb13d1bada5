// One tab stop for many elements (roving tabindex): arrows, Home and End move, Enter and Space select.

// `entries`: { node, row, at } for each element, row counted from the top, at across. Gives a function that makes sure of
// the tab stop, to be called once elements have changed.
export function steer(root, entries, onSelect) {
  const stop = (node) => {
    for (const entry of entries()) entry.node.tabIndex = entry.node === node ? 0 : -1;
  };
  root.addEventListener("focusin", (event) => {
    if (entries().some((entry) => entry.node === event.target)) stop(event.target);
  });
  root.addEventListener("keydown", (event) => {
    const all = entries();
    const here = all.find((entry) => entry.node === event.target);
    if (!here || event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onSelect(here.node);
      return;
    }
    const next = target(all, here, event.key, event.ctrlKey);
    if (!next) return;
    event.preventDefault();
    next.node.focus();
  });
  return () => {
    const all = entries();
    if (all.length && !all.some((entry) => entry.node.tabIndex === 0)) stop(all[0].node);
  };
}

function target(all, here, key, control) {
  const inRow = all.filter((entry) => entry.row === here.row).sort((a, b) => a.at - b.at);
  const place = inRow.indexOf(here);
  const rows = [...new Set(all.map((entry) => entry.row))].sort((a, b) => a - b);
  const nearest = (row) =>
    all.filter((entry) => entry.row === row).sort((a, b) => Math.abs(a.at - here.at) - Math.abs(b.at - here.at))[0];
  const step = (by) => {
    const row = rows[rows.indexOf(here.row) + by];
    return row === undefined ? here : nearest(row);
  };
  const edge = (row, last) => all.filter((entry) => entry.row === row).sort((a, b) => a.at - b.at).at(last ? -1 : 0);
  switch (key) {
    case "ArrowLeft": return inRow[Math.max(place - 1, 0)];
    case "ArrowRight": return inRow[Math.min(place + 1, inRow.length - 1)];
    case "ArrowUp": return step(-1);
    case "ArrowDown": return step(1);
    case "Home": return edge(control ? rows[0] : here.row, false);
    case "End": return edge(control ? rows.at(-1) : here.row, true);
    default: return null;
  }
}

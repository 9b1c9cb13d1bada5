// Cells beside the grid, from a search for the boundary: marks at their true place, never cells of the map.
import { downOf } from "./axes.js";
import { element } from "./dom.js";
import { lookOf } from "./heat-map.js";
import { cellLabel } from "./words.js";

export class Marks {
  constructor(root, onSelect, onPoint) {
    Object.assign(this, { root, onSelect, onPoint, nodes: new Map() });
  }

  show(report, view, axis) {
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.cell : null;
    this.root.hidden = report.beside.length === 0;
    this.nodes.clear();
    const metric = report.metricById.get(view.metric);
    for (const cell of report.beside) {
      const look = lookOf(report, metric, cell);
      const face = element("i", { class: look.colour ? "" : look.kind });
      if (look.colour) face.style.background = look.colour;
      const label = cellLabel(report, metric, cell);
      const node = element("button", { type: "button", class: "mark", "data-cell": cell.id, "aria-label": label, tabindex: -1 }, face);
      node.setAttribute("aria-pressed", String(cell.id === view.selected));
      const at = axis.of(cell);
      node.style.left = `${100 * at}%`;
      node.style.top = `${(100 * downOf(report, cell.noise_rate)) / report.rates.length}%`;
      node.addEventListener("click", () => this.onSelect(cell.id));
      node.addEventListener("pointerenter", () => this.onPoint(cell.id));
      node.addEventListener("pointerleave", () => this.onPoint(null));
      node.addEventListener("focus", () => this.onPoint(cell.id));
      this.nodes.set(cell.id, { node, row: -cell.noise_rate, at });
    }
    this.root.replaceChildren(...this.entries().map((entry) => entry.node));
    if (focused) this.nodes.get(focused)?.node.focus({ preventScroll: true });
  }

  entries() {
    return [...this.nodes.values()];
  }
}

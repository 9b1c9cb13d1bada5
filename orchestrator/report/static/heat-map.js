// The heat map: a grid of elements, one for each planned cell. Colour only where there is data.
import { colourAt, inkOn } from "./colours.js";
import { isEmpty, valueOf, whyEmpty } from "./data.js";
import { element } from "./dom.js";
import { fixed, short } from "./numbers.js";
import { cellLabel } from "./words.js";

const BLANK = "#ffffff";

// Elements by cell, rebuilt only where the plan has changed: focus and scroll stay where they are.
export class HeatMap {
  constructor(root, onSelect, onPoint) {
    Object.assign(this, { root, onSelect, onPoint, nodes: new Map(), built: "" });
  }

  show(report, view, axis) {
    const plan = report.grid.map((cell) => cell.id).join(" ");
    if (plan !== this.built) this.#build(report);
    this.built = plan;
    this.#place(report, axis);
    this.#paint(report, view);
  }

  entries() {
    return [...this.nodes.values()];
  }

  #build(report) {
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.cell : null;
    this.nodes.clear();
    const rates = [...report.rates].reverse();
    const rows = rates.map((rate, row) => {
      const lane = element("div", { class: "lane", role: "presentation" });
      for (const cell of report.grid.filter((each) => each.noise_rate === rate).sort((a, b) => a.ratio - b.ratio)) {
        lane.append(this.#cell(cell, row));
      }
      const head = element("div", { class: "rate", role: "rowheader", "aria-label": `noise rate ${rate}` }, String(rate));
      return element("div", { class: "map-row", role: "row", "aria-rowindex": row + 2 }, head, lane);
    });
    this.ticks = element("div", { class: "lane", role: "presentation" });
    const corner = element("div", { class: "rate", role: "columnheader" }, element("span", { class: "unseen" }, "noise rate"));
    const head = element("div", { class: "map-row ticks", role: "row", "aria-rowindex": 1 }, corner, this.ticks);
    this.root.replaceChildren(...rows, head);
    if (focused) this.nodes.get(focused)?.node.focus({ preventScroll: true });
  }

  #cell(cell, row) {
    const node = element("div", { role: "gridcell", tabindex: -1, "data-cell": cell.id });
    node.addEventListener("click", () => this.onSelect(cell.id));
    node.addEventListener("pointerenter", () => this.onPoint(cell.id));
    node.addEventListener("pointerleave", () => this.onPoint(null));
    node.addEventListener("focus", () => this.onPoint(cell.id));
    this.nodes.set(cell.id, { node, row, at: 0 });
    return node;
  }

  #place(report, axis) {
    const columns = new Map(axis.columns.map((column, i) => [column.value, { ...column, index: i }]));
    for (const cell of report.grid) {
      const entry = this.nodes.get(cell.id);
      const { left, right, index } = columns.get(cell[axis.id]);
      entry.at = (left + right) / 2;
      entry.node.style.left = `${100 * left}%`;
      entry.node.style.width = `${100 * (right - left)}%`;
      entry.node.setAttribute("aria-colindex", index + 2);
    }
    const rows = report.rates.length;
    const plot = this.root.parentElement;
    plot.style.setProperty("--rows", rows);
    plot.style.setProperty("--row-height", `${Math.min(Math.max(Math.round(330 / rows), 26), 64)}px`);
    this.root.setAttribute("aria-rowcount", rows + 1);
    this.root.setAttribute("aria-colcount", axis.values.length + 1);
    this.ticks.replaceChildren(
      ...axis.values.map((value) => {
        const name = `${axis.short} ${short(value)}`;
        const tick = element("div", { class: "tick", role: "columnheader", "aria-label": name }, short(value));
        tick.style.left = `${100 * axis.share(Math.log10(value))}%`;
        return tick;
      }),
    );
    this.fit();
  }

  // Numbers are shown where they fit. Labels that would touch the one before stay for screen readers alone.
  fit() {
    const room = this.ticks?.offsetWidth ?? 0;
    for (const { node } of this.nodes.values()) {
      const width = (room * parseFloat(node.style.width)) / 100;
      node.dataset.room = width > 46 ? "wide" : width > 29 ? "number" : "none";
    }
    let free = -Infinity;
    const boxes = [...(this.ticks?.children ?? [])].map((tick) => [tick, tick.offsetLeft, tick.offsetWidth]);
    for (const [tick, centre, width] of boxes) {
      const crowded = centre - width / 2 < free;
      tick.classList.toggle("crowded", crowded);
      if (!crowded) free = centre + width / 2 + 5;
    }
  }

  #paint(report, view) {
    const metric = report.metricById.get(view.metric);
    this.root.setAttribute("aria-label", `${metric ? metric.label : "phase"} by noise rate and p/n`);
    for (const cell of report.grid) {
      const { node } = this.nodes.get(cell.id);
      const look = lookOf(report, metric, cell);
      node.className = `cell ${look.kind}`;
      node.style.background = look.colour ?? "";
      node.style.color = look.colour ? inkOn(look.colour) : "";
      const count = look.count === undefined ? null : element("span", { class: "count" }, look.count);
      node.replaceChildren(element("span", { class: "value" }, look.text, count));
      node.setAttribute("aria-label", cellLabel(report, metric, cell));
      node.setAttribute("aria-selected", String(cell.id === view.selected));
    }
  }
}

// How a cell looks: `colour` only where its number, or its phase, was measured.
export function lookOf(report, metric, cell) {
  const lost = cell.n_diverged ? "\u2020" : "";
  if (isEmpty(cell)) {
    return { kind: cell.phase === "diverged" ? "diverged empty" : "missing empty", text: whyEmpty(cell) };
  }
  if (!metric) {
    const phase = report.phases.find((each) => each.name === cell.phase);
    const colour = phase.colour.toLowerCase();
    return { kind: colour === BLANK ? "letter framed" : "letter", colour, text: phase.letter, count: `n=${cell.n}${lost}` };
  }
  const { mean, n } = valueOf(metric, cell);
  if (mean === null) return { kind: "missing empty", text: "no data" };
  const colour = colourAt((mean - metric.from) / (metric.to - metric.from));
  return { kind: "measured", colour, text: fixed(mean, metric.decimals), count: `n=${n}${lost}` };
}

// The key: a colour scale or the phases, then hatching, lines and marks, as far as they occur.
import { inkOn, ramp } from "./colours.js";
import { isEmpty, valueOf } from "./data.js";
import { drawing, element } from "./dom.js";
import { fixed } from "./numbers.js";

export function showLegend(root, report, view) {
  const metric = report.metricById.get(view.metric);
  const first = metric ? [scale(metric)] : report.phases.map((phase) => phaseEntry(report, phase));
  root.replaceChildren(...first, ...hatches(report, metric), ...(view.lines ? lineEntries(report) : []), ...besides(report));
}

function scale(metric) {
  const bar = element("div", { class: "ramp" });
  bar.style.background = ramp();
  const middle = `${metric.label}${metric.unit === "fraction" ? "" : ` (${metric.unit})`}`;
  const ends = [fixed(metric.from, metric.decimals), middle, fixed(metric.to, metric.decimals)];
  return element("div", { class: "scale" }, bar, element("div", { class: "ends" }, ...ends.map((text) => element("span", {}, text))));
}

function swatch(letter, colour, kind = "") {
  const node = element("span", { class: `swatch ${kind}` }, letter);
  if (colour) Object.assign(node.style, { background: colour, color: inkOn(colour) });
  return node;
}

function phaseEntry(report, phase) {
  const number = report.cells.filter((cell) => cell.phase === phase.name).length;
  return element("div", {}, swatch(phase.letter, phase.colour.toLowerCase()), `${phase.name} (${number})`);
}

function hatches(report, metric) {
  const shown = [];
  const missing = report.cells.some((cell) =>
    isEmpty(cell) ? cell.phase !== "diverged" : metric && valueOf(metric, cell).mean === null);
  if (missing) shown.push(element("div", {}, swatch("", null, "missing"), "no data"));
  if (report.cells.some((cell) => cell.phase === "diverged")) {
    shown.push(element("div", {}, swatch("", null, "diverged"), "all runs diverged"));
  }
  return shown;
}

function lineEntry(kind, label) {
  const line = drawing("svg", { viewBox: "0 0 30 14" });
  if (kind === "band") line.append(drawing("rect", { width: 30, height: 14, class: "band" }));
  else line.append(drawing("line", { x1: 0, x2: 30, y1: 7, y2: 7, class: kind }));
  return element("div", {}, line, label);
}

function lineEntries(report) {
  const { theory, boundary } = report.lines;
  const shown = [];
  for (const name of new Set((theory ?? []).map((each) => each.line))) {
    const { guide } = theory.find((each) => each.line === name);
    shown.push(lineEntry(guide ? "guide" : "theory", `${name}, closed form${guide ? " (a guide)" : ""}`));
  }
  if (boundary) {
    shown.push(lineEntry("estimate", `estimated: ${boundary.label}`));
    const banded = ["enter_low", "enter_high", "exit_low", "exit_high"].some((name) =>
      boundary[name].some((value) => value !== null));
    if (banded) shown.push(lineEntry("band", `${100 * boundary.confidence} % band over seeds`));
  }
  return shown;
}

function besides(report) {
  if (!report.beside.length) return [];
  return [element("div", {}, "\u25c7", ` beside the grid, from a boundary search (${report.beside.length})`)];
}

// The numbers of one cell, beside the map.
import { inkOn } from "./colours.js";
import { isEmpty, valueOf, whyEmpty } from "./data.js";
import { element } from "./dom.js";
import { fixed, percent, short } from "./numbers.js";
import { statusWords } from "./words.js";

export function showReadout(root, report, view, cell) {
  if (!cell) {
    root.replaceChildren(element("p", { class: "where" }, "Point at a cell, or move to it with the keyboard, to read its numbers."));
    return;
  }
  const metric = report.metricById.get(view.metric);
  const where = element("p", { class: "where" }, `Noise rate ${cell.noise_rate}, p/n ${short(cell.ratio)}`,
    element("br"), `width ${short(cell.width)}, p = ${short(cell.parameters)}, n = ${short(cell.samples)}`,
    cell.in_grid ? null : element("br"), cell.in_grid ? null : "beside the grid, from a boundary search");
  root.replaceChildren(where, ...numbers(report, metric, cell), ...shares(report, cell), status(cell), ids(cell));
}

function numbers(report, metric, cell) {
  if (isEmpty(cell)) return [element("p", { class: "number" }, whyEmpty(cell))];
  if (!metric) {
    return [element("p", { class: "number" }, cell.phase), list(["err_last", "gap_err", "noise_cost"].map((id) => entry(report.metricById.get(id), cell)))];
  }
  const { mean } = valueOf(metric, cell);
  const name = element("p", { class: "name" }, metric.label);
  if (mean === null) return [name, element("p", { class: "number" }, "not measured")];
  return [name, element("p", { class: "number" }, fixed(mean, Math.max(metric.decimals, 3))), list(spread(metric, cell))];
}

function entry(metric, cell) {
  const { mean, low, high } = valueOf(metric, cell);
  if (mean === null) return [metric.label, "not measured"];
  return [metric.label, low === null ? fixed(mean, 3) : `${fixed(mean, 3)} (${fixed(low, 3)} to ${fixed(high, 3)})`];
}

function spread(metric, cell) {
  const { se, low, high, n } = valueOf(metric, cell);
  const rows = [["n", `${n} seed${n === 1 ? "" : "s"}`], ["phase", cell.phase]];
  if (low !== null && high !== null) rows.unshift(["95 % interval", `${fixed(low, 3)} to ${fixed(high, 3)}`]);
  else if (se !== null) rows.unshift(["standard error", fixed(se, 3)]);
  else rows.unshift(["95 % interval", "not known from one seed"]);
  return rows;
}

const list = (rows) => element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));

function shares(report, cell) {
  const found = report.phases.map((phase) => ({ ...phase, share: cell[`p_${phase.name}`] })).filter((phase) => phase.share > 0);
  if (!found.length) return [];
  const words = found.map((phase) => `${phase.letter} ${phase.name} ${percent(phase.share)}`).join(", ");
  const bar = element("div", { class: "shares", "aria-hidden": "true" }, ...found.map((phase) => {
    const part = element("span", {}, phase.share > 0.08 ? phase.letter : "");
    Object.assign(part.style, { flex: phase.share, background: phase.colour, color: inkOn(phase.colour.toLowerCase()) });
    return part;
  }));
  const said = cell.n === 1 ? `By its one seed, which decides nothing: ${found[0].name}.` : `Of the resamples: ${words}.`;
  return [bar, element("p", {}, said)];
}

function status(cell) {
  return element("p", { class: "where" }, `${statusWords(cell)}.`);
}

const ids = (cell) => element("p", { class: "ids" }, ...cell.runs.map((run) => element("span", {}, run.run_id, " ")));

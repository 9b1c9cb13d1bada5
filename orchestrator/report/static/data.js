// The report's document: its columns as cells and runs, and each cell with its numbers in every metric.
import { decimalsFor } from "./numbers.js";

function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

const unique = (values) => [...new Set(values)].sort((a, b) => a - b);

export function readReport(document_) {
  if (!document_) return null;
  const cells = rowsOf(document_.cells);
  cells.forEach((cell, place) => Object.assign(cell, { place, runs: [] }));
  for (const run of rowsOf(document_.runs)) cells[run.cell].runs.push(run);
  const grid = cells.filter((cell) => cell.in_grid);
  return {
    ...document_,
    cells,
    byId: new Map(cells.map((cell) => [cell.id, cell])),
    metricById: new Map(document_.metrics.map((metric) => [metric.id, withRange(metric)])),
    rates: unique(grid.map((cell) => cell.noise_rate)),
    grid,
    beside: cells.filter((cell) => !cell.in_grid),
  };
}

// From 0: a scale that starts at the best cell exaggerates.
function withRange(metric) {
  const known = metric.mean.filter((value) => value !== null);
  const from = Math.min(0, ...known);
  const to = Math.max(0.01, ...known);
  return { ...metric, from, to, decimals: decimalsFor(Math.max(-from, to)) };
}

export function valueOf(metric, cell) {
  const at = (name) => (metric[name] ? metric[name][cell.place] : null);
  return { mean: at("mean"), se: at("se"), low: at("low"), high: at("high"), n: at("n") };
}

export const isEmpty = (cell) => cell.n === 0;

// What a map says where there is no number.
export function whyEmpty(cell) {
  if (cell.phase === "diverged") return "diverged";
  return "no data";
}

// Where a cell is across and up. Across is a log scale, with edges midway between neighbours, as in the printed figures.
import { interpolate } from "./numbers.js";

export function acrossAxis(report, id) {
  const about = report.axes.find((axis) => axis.id === id);
  const values = [...new Set(report.grid.map((cell) => cell[id]))].sort((a, b) => a - b);
  const logs = values.map(Math.log10);
  const edges = edgesOf(logs);
  const beside = report.beside.map((cell) => Math.log10(cell[id]));
  const pad = 0.02 * (edges.at(-1) - edges[0]);
  const from = Math.min(edges[0], ...beside.map((log) => log - pad));
  const to = Math.max(edges.at(-1), ...beside.map((log) => log + pad));
  const share = (log) => (log - from) / (to - from);
  const columns = values.map((value, i) => ({ value, left: share(edges[i]), right: share(edges[i + 1]) }));
  return { ...about, values, columns, share, ofRatio: fromRatio(report.grid, id), of: (cell) => share(Math.log10(cell[id])) };
}

export function edgesOf(logs) {
  if (logs.length === 1) return [logs[0] - 1 / 6, logs[0] + 1 / 6];
  const middle = logs.slice(1).map((log, i) => (log + logs[i]) / 2);
  return [2 * logs[0] - middle[0], ...middle, 2 * logs.at(-1) - middle.at(-1)];
}

// From log10(p/n) to the log10 of another axis, through the columns of the grid: exact where one is a power of the other.
function fromRatio(grid, id) {
  const pairs = [...new Map(grid.map((cell) => [cell.ratio, cell[id]]))].sort((a, b) => a[0] - b[0]);
  const ratios = pairs.map(([ratio]) => Math.log10(ratio));
  const values = pairs.map(([, value]) => Math.log10(value));
  if (id === "ratio") return (log) => log;
  if (ratios.length === 1) return (log) => values[0] + (id === "samples" ? ratios[0] - log : log - ratios[0]);
  return (log) => interpolate(log, ratios, values);
}

// How far down a noise rate is, in rows; rates are categories, so rows have one height.
export function downOf(report, rate) {
  const rows = report.rates.length;
  if (rows === 1) return 0.5;
  return rows - 0.5 - interpolate(rate, report.rates, report.rates.map((_, i) => i));
}

// A cell in words: for its label in the map, and for the live region.
import { isEmpty, valueOf, whyEmpty } from "./data.js";
import { fixed, percent, short } from "./numbers.js";

export function placeOf(cell) {
  return `noise rate ${cell.noise_rate}, p/n ${short(cell.ratio)}`;
}

export function numberWords(metric, cell) {
  const { mean, se, low, high, n } = valueOf(metric, cell);
  if (mean === null) return `${metric.label} not measured`;
  const unit = metric.unit === "epochs" ? " epochs" : "";
  let words = `${metric.label} ${fixed(mean, 3)}${unit}`;
  if (low !== null && high !== null) words += `, 95 % interval ${fixed(low, 3)} to ${fixed(high, 3)}`;
  else if (se !== null) words += `, standard error ${fixed(se, 3)}`;
  return `${words}, n = ${n}`;
}

export function phaseWords(report, cell) {
  if (isEmpty(cell)) return `${whyEmpty(cell)}: ${statusWords(cell)}`;
  const shares = report.phases
    .filter((phase) => cell[`p_${phase.name}`] > 0)
    .map((phase) => `${phase.name} ${percent(cell[`p_${phase.name}`])}`);
  return `phase ${cell.phase} (${shares.join(", ") || "no phase in any resample"})`;
}

// What became of a cell's planned runs.
export function statusWords(cell) {
  const parts = [["n", "finished"], ["n_diverged", "diverged"], ["n_failed", "failed"], ["n_unfinished", "not finished"]]
    .filter(([name]) => cell[name] > 0)
    .map(([name, word]) => `${cell[name]} ${word}`);
  return `${parts.join(", ")} of ${cell.n_planned} planned runs`;
}

export function cellLabel(report, metric, cell) {
  const numbers = isEmpty(cell) || !metric ? "" : `${numberWords(metric, cell)}; `;
  const lost = cell.n_diverged && !isEmpty(cell) ? `; ${cell.n_diverged} diverged` : "";
  return `${placeOf(cell)}, width ${cell.width}, n ${cell.samples}: ${numbers}${phaseWords(report, cell)}${lost}`;
}

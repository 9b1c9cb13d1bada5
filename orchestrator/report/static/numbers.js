// Numbers as they are printed: a true minus sign, and none before zero.

export function fixed(value, decimals) {
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
}

// Three significant digits at most, large numbers whole and grouped.
export function short(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

export function seconds(value) {
  if (value < 60) return `${value < 10 ? value.toPrecision(2) : Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return `${(value / 3600).toFixed(1)} h`;
}

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

// Decimals that a metric needs to be told apart: by its largest value, the same throughout a map.
export function decimalsFor(largest) {
  return largest < 0.1 ? 3 : largest < 10 ? 2 : 0;
}

export function interpolate(x, xs, ys) {
  if (xs.length === 1) return ys[0] + (x - xs[0]);
  let i = 0;
  while (i < xs.length - 2 && x > xs[i + 1]) i += 1;
  return ys[i] + ((x - xs[i]) / (xs[i + 1] - xs[i])) * (ys[i + 1] - ys[i]);
}

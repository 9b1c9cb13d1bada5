// Boundary and theory over the map. An estimate is dashed, with its band, and ends where measuring ended.
import { downOf } from "./axes.js";
import { drawing } from "./dom.js";

const WIDE = 1000;
const TALL = 100;

export function drawOverlay(svg, report, axis) {
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${TALL * report.rates.length}`);
  const place = (ratio, rate) =>
    [WIDE * axis.share(axis.ofRatio(Math.log10(ratio))), TALL * downOf(report, rate)].map((value) => value.toFixed(2));
  const { theory, boundary } = report.lines;
  const shapes = [];
  if (boundary) for (const side of ["enter", "exit"]) shapes.push(...estimate(boundary, side, place));
  for (const { guide, noise_rate: rates, ratio } of theory ?? []) {
    const path = `M${rates.map((rate, i) => place(ratio[i], rate).join(",")).join("L")}`;
    const kind = guide ? "guide" : "theory";
    shapes.push(drawing("path", { d: path, class: `casing ${kind}-casing` }), drawing("path", { d: path, class: kind }));
  }
  svg.replaceChildren(...shapes);
}

function estimate(boundary, side, place) {
  const shapes = [];
  for (const rows of stretches(boundary, side)) {
    const line = rows.map((i) => place(boundary[side][i], boundary.noise_rate[i]));
    const band = rows.filter((i) => boundary[`${side}_low`][i] !== null || boundary[`${side}_high`][i] !== null);
    if (band.length > 1) {
      const bound = (name, end) => (i) =>
        place(boundary[`${side}_${name}`][i] ?? boundary[end][i], boundary.noise_rate[i]).join(",");
      const edge = [...band.map(bound("low", "measured_low")), ...band.reverse().map(bound("high", "measured_high"))];
      shapes.push(drawing("path", { d: `M${edge.join("L")}Z`, class: "band" }));
    }
    const path = `M${line.map((point) => point.join(",")).join("L")}`;
    shapes.push(drawing("path", { d: path, class: "casing" }), drawing("path", { d: path, class: "estimate", "data-side": side }));
  }
  return shapes;
}

// Successive noise rates at which there is an estimate: a line is not drawn across a gap.
function stretches(boundary, side) {
  const found = [];
  let open = [];
  boundary[side].forEach((ratio, i) => {
    if (ratio !== null) open.push(i);
    else if (open.length) {
      found.push(open);
      open = [];
    }
  });
  if (open.length) found.push(open);
  return found;
}

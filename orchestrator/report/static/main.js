// What the reader has chosen, and what follows from it.
import { acrossAxis } from "./axes.js";
import { embeddedCurves, servedCurves } from "./curves.js";
import { readReport } from "./data.js";
import { byId, choices, element } from "./dom.js";
import { startDownloads } from "./downloads.js";
import { steer } from "./grid-keys.js";
import { HeatMap } from "./heat-map.js";
import { showLegend } from "./legend.js";
import { startLive } from "./live.js";
import { Marks } from "./marks.js";
import { drawOverlay } from "./overlay.js";
import { VIEWS, drawCurves, loadPlotly } from "./plot.js";
import { showReadout } from "./readout.js";
import { showRuns } from "./run-list.js";
import { startTheme } from "./theme.js";
import { placeOf } from "./words.js";

const isLive = document.documentElement.dataset.mode === "live";
const curvesOf = isLive ? servedCurves : embeddedCurves;
const view = { metric: "err_last", axis: "ratio", selected: null, pointed: null, curves: "errors", lines: true };
const map = new HeatMap(byId("map"), select, point);
const marks = new Marks(byId("marks"), select, point);
const steered = [
  steer(byId("map"), () => map.entries(), (node) => select(node.dataset.cell)),
  steer(byId("marks"), () => marks.entries(), (node) => select(node.dataset.cell)),
];
let report = null;
let axis = null;

function announce(text) {
  byId("announcer").textContent = text;
}

function point(id) {
  view.pointed = id;
  const focused = document.activeElement?.dataset?.cell;
  const shown = id ?? view.selected ?? focused;
  showReadout(byId("readout"), report, view, report.byId.get(shown));
}

function select(id) {
  view.selected = id;
  const cell = report.byId.get(id);
  history.replaceState(null, "", `#cell=${encodeURIComponent(id)}`);
  show();
  announce(`Selected: ${placeOf(cell)}, ${cell.runs.length} runs. Their curves stand below the map.`);
}

function show() {
  axis = acrossAxis(report, view.axis);
  map.show(report, view, axis);
  marks.show(report, view, axis);
  byId("overlay").toggleAttribute("hidden", !view.lines);
  drawOverlay(byId("overlay"), report, axis);
  byId("x-label").textContent = `${axis.label} (log scale)`;
  showLegend(byId("legend"), report, view);
  const metric = report.metricById.get(view.metric);
  byId("caption").textContent = metric ? metric.caption : report.phase_caption;
  point(view.pointed);
  steered.forEach((ensure) => ensure());
  showCell();
}

let drawing_ = 0;

async function showCell() {
  const cell = report.byId.get(view.selected);
  byId("cell-body").hidden = !cell;
  byId("cell-hint").hidden = Boolean(cell);
  byId("cell-title").textContent = cell ? `Curves and runs at ${placeOf(cell)}` : "Curves and runs of a cell";
  if (!cell) return;
  showRuns(byId("runs"), report, cell, announce);
  drawing_ += 1;
  const mine = drawing_;
  try {
    const curves = await curvesOf(cell);
    if (mine !== drawing_) return;
    byId("curves-note").textContent = await drawCurves(byId("curves"), report, cell, curves, view.curves);
    byId("curves").dataset.drawn = cell.id;
  } catch (error) {
    byId("curves-note").textContent = `The curves cannot be drawn: ${error.message}`;
  }
}

function showControls() {
  const options = [["phase", "phase"], ...report.metrics.map((metric) => [metric.id, metric.label + (metric.n.some(Boolean) ? "" : " (not measured)")])];
  byId("metric").replaceChildren(...options.map(([id, label]) => element("option", { value: id }, label)));
  byId("metric").value = view.metric;
  const axes = report.axes.map(({ id, short }) => ({ id, label: short }));
  choices(byId("axis"), "axis", axes, view.axis, (id) => { view.axis = id; show(); });
  choices(byId("view"), "view", VIEWS, view.curves, (id) => { view.curves = id; showCell(); });
  byId("lines-choice").hidden = Object.keys(report.lines).length === 0;
}

function accept(content) {
  const before = report;
  report = readReport(content);
  if (!before || before.axes.length !== report.axes.length) showControls();
  if (!report.byId.has(view.selected)) view.selected = null;
  if (!report.byId.has(view.pointed)) view.pointed = null;
  byId("lines-choice").hidden = Object.keys(report.lines).length === 0;
  document.querySelector(".figure").hidden = false;
  show();
  if (!before) start();
}

function start() {
  byId("metric").addEventListener("change", (event) => { view.metric = event.target.value; show(); });
  byId("lines").addEventListener("change", (event) => { view.lines = event.target.checked; show(); });
  new ResizeObserver(() => map.fit()).observe(byId("map"));
  const wanted = decodeURIComponent(location.hash.replace(/^#cell=/, ""));
  if (report.byId.has(wanted)) select(wanted);
}

startTheme(byId("theme"), () => report && show());
startDownloads(byId("downloads"));
const embedded = JSON.parse(byId("document").textContent);
if (embedded) accept(embedded);
else document.querySelector(".figure").hidden = true;
document.documentElement.dataset.ready = String(Math.round(performance.now()));
window.addEventListener("load", () => {
  if (isLive) startLive(Number(document.documentElement.dataset.every), accept);
  setTimeout(() => (window.requestIdleCallback ?? setTimeout)(() => loadPlotly()), 300);
});

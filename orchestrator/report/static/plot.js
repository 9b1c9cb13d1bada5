// The curves as a Plotly figure. Plotly lies packed in the page, and is unpacked when it is first needed.
import { fromBase64, gunzip } from "./curves.js";
import { byId, element, parsed } from "./dom.js";
import { fixed } from "./numbers.js";
import { ofPage } from "./theme.js";

export const VIEWS = [
  { id: "errors", label: "Errors", unit: "error (fraction)", main: "test_error", other: "train_error_given",
    names: ["test error", "train error, given labels"] },
  { id: "losses", label: "Losses", unit: "loss", main: "test_loss", other: "train_loss_given",
    names: ["test loss", "train loss, given labels"] },
  { id: "labels", label: "Corrupted labels", unit: "share of corrupted examples", main: "memorised", other: "recovered",
    names: ["memorised", "recovered"] },
];

let loading = null;

export function loadPlotly() {
  loading ??= unpackPlotly();
  return loading;
}

async function unpackPlotly() {
  await parsed;
  const source = new TextDecoder().decode(await gunzip(fromBase64(byId("packed-plotly").textContent)));
  document.head.append(element("script", {}, source));
  return window.Plotly;
}

// Draws the curves of a cell's runs; says in words what is drawn.
export async function drawCurves(node, report, cell, curves, viewId) {
  const view = VIEWS.find((each) => each.id === viewId);
  const plotly = await loadPlotly();
  const drawn = cell.runs.filter((run) => curves.has(run.run_id));
  const across = acrossOf(drawn.map((run) => curves.get(run.run_id).epoch));
  const traces = drawn.flatMap((run) => tracesOf(run, curves.get(run.run_id), view, across));
  const shown = traces.some((trace) => trace.y.some((value) => value !== null)) ? traces : [];
  await plotly.react(node, shown, layoutOf(report, view, across, shown.length), { displaylogo: false, responsive: true, displayModeBar: false });
  const running = drawn.filter((run) => run.status === "running" || run.status === "unfinished").length;
  const what = `${view.names[0]} (solid) and ${view.names[1]} (dotted) of ${drawn.length} runs`;
  node.setAttribute("aria-label", `${what}, by epoch`);
  const best = view.id === "errors" ? "; the circle marks each run's lowest test error" : "";
  const open = running ? ` ${running} of them not finished, drawn thin and dashed up to now; they enter no mean.` : "";
  const thin = report.thinned > 1 ? ` Every ${report.thinned}th evaluation is drawn.` : "";
  const none = drawn.length ? "" : " No run of this cell has an evaluation yet.";
  return shown.length ? `${what[0].toUpperCase()}${what.slice(1)}${best}.${open}${thin}` : `Not measured here.${none}`;
}

// Time: log, with the limit of a flow (infinity) beyond the last finite time, and time 0 before the first.
function acrossOf(epochs) {
  const finite = epochs.flat().filter((epoch) => epoch > 0 && Number.isFinite(epoch));
  const first = Math.min(...finite, 1);
  const last = Math.max(...finite, 1);
  const span = Math.max(last / first, 2);
  const end = last * span ** 0.08;
  const start = first / span ** 0.05;
  const hasLimit = epochs.flat().some((epoch) => epoch === Infinity);
  return { first, last, end, hasLimit, of: (epoch) => (epoch === Infinity ? end : epoch > 0 ? epoch : start) };
}

function tracesOf(run, curve, view, across) {
  const open = run.status === "running" || run.status === "unfinished";
  const accent = ofPage("--accent");
  const x = curve.epoch.map(across.of);
  const clean = (values) => values.map((value) => (Number.isFinite(value) ? value : null));
  const name = (i) => `${view.names[i]}, seed ${run.seed}${open ? ` (${run.status})` : run.status === "done" ? "" : ` (${run.status})`}`;
  const line = (color, dash) => ({ color, dash, width: open ? 1 : 1.4 });
  const shared = { x, mode: "lines", type: "scatter", showlegend: false, hovertemplate: "%{y:.4g} at epoch %{x:.4g}" };
  const traces = [
    { ...shared, y: clean(curve[view.main]), name: name(0), line: line(accent, open ? "dash" : "solid") },
    { ...shared, y: clean(curve[view.other]), name: name(1), line: line(ofPage("--muted"), open ? "dashdot" : "dot") },
  ];
  if (view.id === "errors") traces.push(best(run, curve, x, accent));
  return traces;
}

function best(run, curve, x, color) {
  const values = curve.test_error.map((value) => (Number.isNaN(value) ? Infinity : value));
  const at = values.indexOf(Math.min(...values));
  const known = Number.isFinite(values[at]);
  return {
    x: known ? [x[at]] : [], y: known ? [values[at]] : [], mode: "markers", type: "scatter", showlegend: false,
    name: `lowest test error, seed ${run.seed}`, marker: { symbol: "circle-open", size: 9, color, line: { width: 1.8 } },
    hovertemplate: known ? `${fixed(values[at], 4)}` : "",
  };
}

function layoutOf(report, view, across, hasCurves) {
  const ink = ofPage("--ink");
  const rule = ofPage("--rule");
  const axis = { gridcolor: rule, zeroline: false, linecolor: rule, tickcolor: rule, ticks: "outside", automargin: true };
  const ticks = across.hasLimit ? limitTicks(across) : { dtick: 1 };
  return {
    height: 350, margin: { l: 56, r: 16, t: 30, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12.5, color: ink }, hovermode: "closest",
    hoverlabel: { bgcolor: ofPage("--panel"), bordercolor: rule, font: { color: ink } },
    xaxis: { ...axis, type: "log", ...ticks, title: { text: report.flow ? "flow time (log scale)" : "epoch (log scale)", standoff: 8 } },
    yaxis: { ...axis, rangemode: "tozero", title: { text: view.unit, standoff: 8 } },
    annotations: hasCurves ? namesOf(view) : [],
  };
}

// Names above the plot, in the look of their lines: no key to look up.
function namesOf(view) {
  const shared = { xref: "paper", yref: "paper", y: 1.02, yanchor: "bottom", showarrow: false };
  return [
    { ...shared, x: 0, xanchor: "left", text: `\u2501 ${view.names[0]}`, font: { color: ofPage("--accent") } },
    { ...shared, x: 1, xanchor: "right", text: `\u2508 ${view.names[1]}`, font: { color: ofPage("--muted") } },
  ];
}

function limitTicks(across) {
  const values = [];
  for (let power = Math.ceil(Math.log10(across.first)); power <= Math.log10(across.last) + 1e-9; power += 1) values.push(10 ** power);
  return { tickvals: [...values, across.end], ticktext: [...values.map((value) => (value >= 1e4 || value < 1e-3 ? value.toExponential() : String(value))), "\u221e"] };
}

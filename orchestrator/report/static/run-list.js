// The runs of a cell as a table, each with the command that tells how it came to be.
import { element } from "./dom.js";
import { fixed, seconds } from "./numbers.js";

const number = (value) => (value === null ? "\u2013" : fixed(value, 4));

export function showRuns(table, report, cell, announce) {
  const heads = [["run", ""], ["seed", ""], ["status", "word"], ["evaluations", ""], ["final test error", ""],
    ["best test error", ""], ["time", ""], ["how it came to be", "word"]];
  const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { scope: "col", class: kind }, text)));
  const caption = element("caption", { class: "unseen" }, "Runs of the selected cell");
  table.replaceChildren(caption, element("thead", {}, head), element("tbody", {}, ...cell.runs.map((run) => row(report, run, announce))));
}

function row(report, run, announce) {
  const command = `${report.reproduce} ${run.run_id}`;
  const copy = element("button", { type: "button", "aria-label": `Copy the command of run ${run.run_id}` }, "Copy");
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(command)) ? "Copied" : "Not copied";
    announce(copy.textContent);
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  const status = [run.status, run.signature && run.status === "failed" ? `: ${run.signature}` : "",
    run.reused_from ? `, from ${run.reused_from}` : ""].join("");
  const cells = [[element("code", {}, run.run_id), ""], [String(run.seed), ""], [status, "word"],
    [run.evaluations === null ? "\u2013" : String(run.evaluations), ""], [number(run.err_last), ""], [number(run.err_best), ""],
    [run.seconds === null ? "\u2013" : seconds(run.seconds), ""]];
  const last = element("td", { class: "word" }, copy, " ", element("code", { class: "command" }, command));
  return element("tr", {}, ...cells.map(([content, kind]) => element("td", { class: kind }, content)), last);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

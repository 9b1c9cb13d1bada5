// A page that follows its sweep: it asks for the state, and for the document only when that has changed.
import { byId } from "./dom.js";

// `every`: milliseconds between questions.
export function startLive(every, onDocument) {
  byId("live").hidden = false;
  let etag = "";
  let version = null;
  const ask = async () => {
    try {
      const answer = await fetch("state", { headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store" });
      if (answer.status === 200) {
        const state = await answer.json();
        if (state.document && state.document !== version) {
          const { document: content, parts } = await (await fetch("document", { cache: "no-store" })).json();
          for (const [name, html] of Object.entries(parts)) {
            const node = document.querySelector(`[data-part="${name}"]`);
            if (node && node.innerHTML !== html) node.innerHTML = html; // escaped by the server
          }
          onDocument(content);
          version = state.document;
        }
        etag = answer.headers.get("ETag");
        showState(state);
      } else if (answer.status !== 304) {
        showState({ words: `The server answered ${answer.status}.` });
      } else lost(false);
    } catch {
      lost(true);
    }
    setTimeout(ask, every);
  };
  ask();
}

function showState(state) {
  lost(false);
  byId("live-state").textContent = state.words;
  byId("live-bar").style.setProperty("--share", `${100 * (state.share ?? 0)}%`);
  const problem = byId("live-problem");
  problem.hidden = !state.problem;
  if (problem.textContent !== (state.problem ?? "")) problem.textContent = state.problem ?? "";
}

function lost(isLost) {
  const node = byId("live-state");
  const note = " The server does not answer: what follows is what it said last.";
  if (isLost && !node.textContent.endsWith(note)) node.textContent += note;
  if (!isLost && node.textContent.endsWith(note)) node.textContent = node.textContent.slice(0, -note.length);
}

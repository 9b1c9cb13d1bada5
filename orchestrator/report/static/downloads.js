// Files that lie in the page: handed out by the links that name them, on demand.
import { fromBase64, gunzip } from "./curves.js";

export function startDownloads(list) {
  list.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-file]");
    if (!link || link.dataset.ready) return;
    const held = document.querySelector(`script[data-content="${CSS.escape(link.dataset.file)}"]`);
    if (!held) return; // a live page: the server answers
    event.preventDefault();
    const bytes = fromBase64(held.textContent);
    const content = held.dataset.kind === "gzip" ? await gunzip(bytes) : bytes;
    link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
    link.dataset.ready = "yes";
    link.click();
  });
}

// The curves of a cell: read out of the page, or asked of the live server, only when they are wanted.
import { byId, parsed } from "./dom.js";

export async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// The format is described where it is written: orchestrator/report/curves.py.
export async function unpack(packed) {
  const content = await gunzip(packed);
  const headerLength = new DataView(content.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(content.subarray(4, 4 + headerLength)));
  const planes = content.subarray(4 + headerLength);
  const count = planes.length / 4;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < 4; plane += 1) {
    for (let i = 0; i < count; i += 1) bytes[4 * i + plane] = planes[plane * count + i];
  }
  const numbers = new DataView(bytes.buffer);
  let at = 0;
  const next = (points) => Array.from({ length: points }, () => {
    const value = numbers.getFloat32(4 * at, true);
    at += 1;
    return value;
  });
  return new Map(header.runs.map(({ id, points }) => [id, Object.fromEntries(header.series.map((name) => [name, next(points)]))]));
}

let packedLines = null;

export async function embeddedCurves(cell) {
  await parsed;
  if (!packedLines) {
    const text = byId("packed-curves").textContent;
    packedLines = new Map(text.split("\n").filter(Boolean).map((line) => [Number(line.slice(0, line.indexOf(" "))), line]));
  }
  const line = packedLines.get(cell.place);
  return line ? unpack(fromBase64(line.slice(line.indexOf(" ") + 1))) : new Map();
}

export async function servedCurves(cell) {
  const answer = await fetch(`curves?cell=${encodeURIComponent(cell.id)}`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}: ${await answer.text()}`);
  return unpack(new Uint8Array(await answer.arrayBuffer()));
}

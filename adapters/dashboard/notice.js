/** Short words of what was done, or of what went wrong; read aloud where that is asked for. */

import { element } from "./element.js";

const SHOWN_MS = 6_000;

/**
 * Say that something was done.
 * @param {string} text
 */
export function say(text) {
  show(text, "notice");
}

/**
 * Say that something was not done, and why.
 * @param {unknown} error
 */
export function complain(error) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  show(error instanceof Error ? error.message : String(error), "notice.is-bad");
}

function show(text, kind) {
  const shown = element(`div.${kind}`, {}, text);
  document.getElementById("notices")?.append(shown);
  setTimeout(() => shown.remove(), SHOWN_MS);
}

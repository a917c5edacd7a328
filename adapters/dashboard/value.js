/** Values of users, so that they can be read: inputs, outputs, states, failures. */

import { element, fill } from "./element.js";
import { complain, say } from "./notice.js";

/** Characters of a value that are shown at first. */
const SHOWN_MAX = 20_000;

/**
 * Write a value on one line, cut to a length.
 * @param {any} value
 * @param {number} [length]
 */
export function brief(value, length = 120) {
  const text = value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/**
 * Show a value.
 * @param {string} title
 * @param {any} value
 */
export function shownValue(title, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const shown = element("pre.value", { tabindex: "0", "aria-label": title }, text.slice(0, SHOWN_MAX));
  const rest = text.length - SHOWN_MAX;
  const more = element("button.small", { type: "button" }, `Show ${rest.toLocaleString()} more characters`);
  more.addEventListener("click", () => {
    shown.textContent = text;
    more.remove();
  });
  return element(
    "section.card.value-card",
    {},
    element("h3", {}, title, copyButton(text)),
    shown,
    rest > 0 && more,
  );
}

/**
 * Show a failure, with what it was caused by and what is in it.
 * @param {any} failure
 * @param {string} [title]
 * @returns {any}
 */
export function shownFailure(failure, title = "Failure") {
  return element(
    "section.card.failure",
    {},
    element("h3", {}, title),
    element("p", {}, element("strong", {}, failure.error_type), ": ", failure.message),
    failure.stack_trace && element("pre.value", { tabindex: "0", "aria-label": "Traceback" }, failure.stack_trace),
    failure.members?.map((one) => shownFailure(one, "In it")),
    failure.cause && shownFailure(failure.cause, "Caused by"),
  );
}

/**
 * Show names and what stands behind them.
 * @param {[string, import("./element.js").Child][]} pairs those of null are left out
 */
export function shownPairs(pairs) {
  const list = element("dl.pairs");
  fill(
    list,
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
  return list;
}

function copyButton(text) {
  const copy = () =>
    navigator.clipboard.writeText(text).then(() => say("Copied"), complain);
  // Browsers let a page do that where it came by TLS, or from this machine.
  return navigator.clipboard && element("button.small", { type: "button", onclick: copy }, "Copy");
}

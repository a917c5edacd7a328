/** Times and spans of time, as people read them. */

import { element } from "./element.js";

const UNITS = /** @type {[string, number][]} */ ([
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1_000],
]);

/**
 * Write a span of time in its one or two greatest units.
 * @param {number} ms
 */
export function span(ms) {
  if (ms < 1_000) return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  const first = UNITS.findIndex(([, length]) => ms >= length);
  const [unit, length] = UNITS[first];
  const whole = Math.floor(ms / length);
  const next = UNITS[first + 1];
  const rest = next ? Math.floor((ms % length) / next[1]) : 0;
  return rest ? `${whole} ${unit} ${rest} ${next[0]}` : `${whole} ${unit}`;
}

/**
 * Say how long ago a time was, or how far ahead it is.
 * @param {string} time in ISO 8601
 * @param {number} [now]
 */
export function ago(time, now = Date.now()) {
  const ms = now - Date.parse(time);
  if (Math.abs(ms) < 1_000) return "now";
  return ms > 0 ? `${span(Math.round(ms / 1_000) * 1_000)} ago` : `in ${span(-ms)}`;
}

/**
 * Write a time in full, in the zone of the window.
 * @param {string} time
 */
export function exact(time) {
  const at = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

/**
 * Show a time: how long ago, which goes on by itself, and in full where one points at it.
 * @param {string | null} time
 */
export function shownTime(time) {
  if (time === null) return element("span.quiet", {}, "–");
  return element("time.ago", { datetime: time, title: exact(time) }, ago(time));
}

/** Keep the times that are shown up to date. */
export function keepTime() {
  setInterval(() => {
    if (document.hidden) return;
    const now = Date.now();
    for (const one of document.querySelectorAll("time.ago")) {
      const text = ago(one.getAttribute("datetime") ?? "", now);
      if (one.textContent !== text) one.textContent = text;
    }
  }, 1_000);
}

/** Where instances stand: names, badges, which of them have ended. */

import { addressOf } from "./address.js";
import { element } from "./element.js";

export const STATUSES = [
  "Pending",
  "Running",
  "Suspended",
  "Completed",
  "Failed",
  "Canceled",
  "Terminated",
];

const ENDED = new Set(["Completed", "Failed", "Canceled", "Terminated"]);

/**
 * Whether an instance has ended.
 * @param {any} status
 */
export function hasEnded(status) {
  return ENDED.has(status.runtime_status);
}

/**
 * Show where an instance stands.
 * @param {any} status
 */
export function badge(status) {
  const kind = status.parked ? "parked" : status.runtime_status.toLowerCase();
  const text = status.parked ? "Parked" : status.runtime_status;
  return element(`span.badge.is-${kind}`, { title: status.parked?.reason }, text);
}

/**
 * Make a link to an actor: an instance, or an entity.
 * @param {string} id
 */
export function actorLink(id) {
  const page = id.startsWith("@") ? "entities" : "instances";
  return element("a", { href: addressOf(page, id) }, id);
}

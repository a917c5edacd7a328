/** What can be done to instances: to one, to some, to all that a filter finds. */

import { get, path, post, remove } from "./api.js";
import { ask } from "./dialog.js";
import { complain, say } from "./notice.js";
import { hasEnded } from "./status.js";

/**
 * @typedef {object} Action
 * @property {string} name what the API calls it
 * @property {string} label
 * @property {string} text what it does
 * @property {boolean} [isDangerous]
 * @property {boolean} [hasReason] whether it takes one
 * @property {boolean} [isForMany] whether it is offered for many instances
 * @property {(status: any) => boolean} fits
 */

/** @type {Action[]} */
export const ACTIONS = [
  {
    name: "cancel",
    label: "Cancel",
    text: "Its code is told, and may compensate.",
    hasReason: true,
    isForMany: true,
    fits: (status) => !hasEnded(status),
  },
  {
    name: "terminate",
    label: "Terminate",
    text: "It ends at once, with its children; its code does not run again.",
    isDangerous: true,
    hasReason: true,
    isForMany: true,
    fits: (status) => !hasEnded(status),
  },
  {
    name: "suspend",
    label: "Suspend",
    text: "It takes no turns until it is resumed.",
    hasReason: true,
    fits: (status) => !hasEnded(status) && status.runtime_status !== "Suspended",
  },
  {
    name: "resume",
    label: "Resume",
    text: "It goes on.",
    hasReason: true,
    fits: (status) => status.runtime_status === "Suspended",
  },
  {
    name: "retry",
    label: "Retry",
    text: "A parked instance tries its turn again.",
    isForMany: true,
    fits: (status) => Boolean(status.parked),
  },
  {
    name: "rewind",
    label: "Rewind",
    text: "A failed instance is taken back to before its failures, and tries again.",
    hasReason: true,
    isForMany: true,
    fits: (status) => status.runtime_status === "Failed",
  },
  {
    name: "restart",
    label: "Restart",
    text: "A new instance is started with the same input.",
    fits: (status) => hasEnded(status),
  },
  {
    name: "purge",
    label: "Purge",
    text: "It is deleted, with its children and its history.",
    isDangerous: true,
    isForMany: true,
    fits: (status) => hasEnded(status) || Boolean(status.parked),
  },
];

const REASON = { name: "reason", label: "Reason" };
/** How many instances one request names. */
const AT_A_TIME = 500;

/**
 * Do something to one instance, if whoever asks for it means it.
 * @param {Action} action
 * @param {string} id
 * @returns {Promise<any>} the answer; null if nothing was done
 */
export async function actOnOne(action, id) {
  const given = await ask({
    title: `${action.label} ${id}?`,
    text: action.text,
    action: action.label,
    isDangerous: action.isDangerous,
    fields: action.hasReason ? [REASON] : [],
  });
  if (!given) return null;
  try {
    const answer =
      action.name === "purge"
        ? await remove(path`instances/${id}`)
        : await post(path`instances/${id}/${action.name}`, { body: given });
    say(`${action.label}: ${id}`);
    return answer;
  } catch (error) {
    complain(error);
    return null;
  }
}

/**
 * Do something to instances that were selected, or to all that conditions find.
 *
 * How many they are is shown before. Those that are found are read page by page, so that each is
 * acted on once, however many they are.
 * @param {Action} action
 * @param {{ids: string[]} | {query: URLSearchParams}} which
 * @returns {Promise<boolean>} whether it was done
 */
export async function actOnMany(action, which) {
  try {
    const count = "ids" in which ? await counted(action, which.ids) : await found(which.query);
    if (count === 0) {
      say("No instance is meant by that");
      return false;
    }
    const many = `${count.toLocaleString()} ${count === 1 ? "instance" : "instances"}`;
    const given = await ask({
      title: `${action.label} ${many}?`,
      text: action.text,
      action: `${action.label} ${many}`,
      isDangerous: action.isDangerous,
      fields: action.hasReason ? [REASON] : [],
    });
    if (!given) return false;
    const batches = "ids" in which ? inBatches(which.ids) : pagesOf(which.query);
    await actOnBatches(action, batches, given.reason ?? "");
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

async function counted(action, ids) {
  let count = 0;
  for (const batch of inBatches(ids)) {
    const body = { action: action.name, ids: batch, dry_run: true };
    count += (await post("instances/actions", { body })).count;
  }
  return count;
}

async function found(query) {
  const asked = new URLSearchParams(query);
  asked.set("limit", "0");
  asked.set("count", "true");
  return (await get("instances", { query: asked })).count;
}

async function actOnBatches(action, batches, reason) {
  let done = 0;
  let failed = 0;
  let why = "";
  for await (const ids of batches) {
    const body = { action: action.name, ids, reason, recursive: true };
    const told = await post("instances/actions", { body });
    done += told.done;
    failed += told.failed;
    why ||= told.failures[0]?.detail ?? "";
  }
  say(`${action.label}: ${done.toLocaleString()} done`);
  if (failed) complain(new Error(`${failed.toLocaleString()} not done: ${why}`));
}

function inBatches(ids) {
  const batches = [];
  for (let at = 0; at < ids.length; at += AT_A_TIME) batches.push(ids.slice(at, at + AT_A_TIME));
  return batches;
}

async function* pagesOf(query) {
  let cursor = null;
  do {
    const asked = new URLSearchParams(query);
    asked.set("limit", String(AT_A_TIME));
    asked.set("payloads", "false");
    if (cursor) asked.set("cursor", cursor);
    const page = await get("instances", { query: asked });
    cursor = page.cursor;
    if (page.items.length) yield page.items.map((status) => status.instance_id);
  } while (cursor);
}

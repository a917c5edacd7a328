/** Why an instance waits: what for, since when, and at which line of its code. */

import { element, refill } from "./element.js";
import { actorLink } from "./status.js";
import { shownTime } from "./times.js";

/**
 * Show what an instance waits for.
 * @param {Element} place
 * @param {any} told what explain says
 */
export function showWaits(place, told) {
  const hindrances = [
    told.parked && `It is parked (${told.parked.type}): ${told.parked.reason}`,
    told.suspended !== null && `It is suspended: ${told.suspended || "no reason was given"}`,
    told.code_trouble && `There is no word of its code: ${told.code_trouble}`,
  ].filter(Boolean);
  refill(
    place,
    hindrances.map((text) => element("p.card.hindrance", {}, text)),
    told.start_at && element("p.card", {}, "It begins ", shownTime(told.start_at)),
    section("Where its code stands", told.branches.map(shownBranch), told.branch_count),
    section("Activities", told.activities.map(shownActivity), told.counts.activities),
    section("Events", told.events.map(shownEvent), told.counts.events),
    section("Timers", told.timers.map(shownTimer), told.counts.timers),
    section("Children", told.children.map(shownChild), told.counts.children),
    section("Calls of entities", told.entity_calls.map(shownEntityCall), told.counts.entity_calls),
    told.lock && section("Lock", [shownLock(told.lock)], 1),
    told.unconsumed_events.length > 0 &&
      section(
        "Events that nothing waits for",
        told.unconsumed_events.map((name) => element("li", {}, name)),
        told.unconsumed_events.length,
      ),
    element(
      "p.quiet",
      {},
      `${told.backlog} messages wait for it. Partition ${told.partition}, shard ${told.shard}; `,
      told.is_in_memory ? "its code is in memory." : "its code is not in memory.",
    ),
  );
}

/**
 * Show a branch of its code, with the lines at which it stands.
 * @param {any} branch
 */
export function shownBranch(branch) {
  return element(
    "li.branch",
    {},
    element(
      "p",
      {},
      element("strong", {}, branch.function),
      branch.waits_for && [" waits for ", shownWaited(branch.waits_for)],
      branch.deadline && [", until ", shownTime(branch.deadline)],
    ),
    branch.lines.map((line) =>
      element(
        "div.source-line",
        {},
        element("span.quiet", { title: line.file }, `${shortPath(line.file)}:${line.line}`),
        element("code", {}, line.text ?? "(the file cannot be read)"),
      ),
    ),
  );
}

/**
 * Write a file's path in short: its name, and the folder that it is in.
 * @param {string} file
 */
export function shortPath(file) {
  return file.split(/[\\/]/).slice(-2).join("/");
}

/**
 * Write what is waited for.
 * @param {any} waited
 * @returns {any}
 */
export function shownWaited(waited) {
  if (waited.kind === "branches") return `its ${waited.count} branches`;
  if (waited.kind === "all" || waited.kind === "any") {
    const parts = waited.parts.slice(0, 5).flatMap((part, at) => [at ? ", " : "", shownWaited(part)]);
    const more = waited.count - Math.min(waited.parts.length, 5);
    return [`${waited.kind} of `, parts, more > 0 && ` and ${more} more`];
  }
  return `${waited.kind} ${waited.name}`.trim();
}

function section(title, items, count) {
  if (!items.length) return null;
  const more = count - items.length;
  return element(
    "section.card",
    {},
    element("h2", {}, title),
    element("ul.plain", {}, items),
    more > 0 && element("p.quiet", {}, `and ${more.toLocaleString()} more`),
  );
}

function shownActivity(one) {
  const most = one.max_attempts === null ? "" : ` of ${one.max_attempts}`;
  return element(
    "li",
    {},
    element("strong", {}, one.summary || one.name),
    one.summary && element("span.quiet", {}, ` ${one.name}`),
    `: ${one.state}, attempt ${one.attempt}${most}`,
    one.state === "running" && one.started_at && [", since ", shownTime(one.started_at)],
    one.state === "waiting" && [", asked for ", shownTime(one.scheduled_at)],
    one.next_attempt_at && [", next attempt ", shownTime(one.next_attempt_at)],
    one.shard !== null && `, on shard ${one.shard}`,
    one.last_failure &&
      element("p.trouble", {}, `${one.last_failure.error_type}: ${one.last_failure.message}`),
  );
}

function shownEvent(one) {
  return element(
    "li",
    {},
    element("strong", {}, one.name),
    ", since ",
    shownTime(one.since),
    one.times_out_at && [", until ", shownTime(one.times_out_at)],
  );
}

function shownTimer(one) {
  const purposes = /** @type {Object<string, string>} */ ({
    deadline: "the deadline of a scope",
    event_timeout: "the timeout of an event",
    overall_timeout: "the timeout of a whole call",
    retry: "the next attempt of a call",
  });
  return element("li", {}, purposes[one.purpose] ?? "a timer", ", due ", shownTime(one.due));
}

function shownChild(one) {
  return element(
    "li",
    {},
    actorLink(one.instance_id),
    ` ${one.name}, since `,
    shownTime(one.started_at),
    one.attempt !== null && `, attempt ${one.attempt}`,
    one.next_attempt_at && [", next attempt ", shownTime(one.next_attempt_at)],
  );
}

function shownEntityCall(one) {
  return element("li", {}, actorLink(one.entity_id), ` ${one.operation}, since `, shownTime(one.called_at));
}

function shownLock(lock) {
  const entities = lock.entities.flatMap((id, at) => [at ? ", " : "", actorLink(id)]);
  return element(
    "li",
    {},
    lock.is_granted ? "It holds " : "It has asked for ",
    entities,
    lock.asked_at && [", ", shownTime(lock.asked_at)],
    lock.waits_at && ["; it waits for ", actorLink(lock.waits_at)],
    lock.holder && [", which is locked by ", actorLink(lock.holder)],
    lock.place !== null && `; its place in the queue is ${lock.place}`,
  );
}

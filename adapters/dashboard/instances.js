/** The list of instances: by every filter, live, without an end, and what is done to many of them. */

import { addressOf, goTo } from "./address.js";
import { ACTIONS, actOnMany } from "./actions.js";
import { get } from "./api.js";
import { element, fill } from "./element.js";
import { Filters } from "./filters.js";
import { complain } from "./notice.js";
import { mayWrite } from "./session.js";
import { STATUSES, badge, hasEnded } from "./status.js";
import { follow } from "./stream.js";
import { shownTime, span } from "./times.js";
import { brief } from "./value.js";
import { viewsControl } from "./views.js";
import { VirtualList, cell } from "./virtual.js";

/** Instances that are read at a time. */
const PAGE = 200;
/** Instances that may have come by themselves before the list begins anew, if nobody looks further down. */
const ARRIVED_MAX = 2_000;
/** Rows from the top that count as looking at the top. */
const TOP_ROWS = 30;
/** Milliseconds between two counts of what a filter finds, at the least. */
const COUNT_MS = 1_000;

const NARROW = matchMedia("(max-width: 720px)");

/** @type {import("./filters.js").Condition[]} */
const CONDITIONS = [
  { name: "statuses", label: "Status", kind: "several", options: STATUSES },
  { name: "instance_id_prefix", label: "Id begins with", kind: "text" },
  { name: "name", label: "Orchestration", kind: "text" },
  { name: "waiting_for", label: "Waits for", kind: "text", hint: "event:NAME, timer, …" },
  { name: "min_attempts", label: "Attempt, at least", kind: "number", least: 2 },
  { name: "parked", label: "Parked", kind: "choice", options: ["", "true", "false"] },
  { name: "order", label: "Order", kind: "choice", options: ["newest", "oldest"] },
  { name: "tag", label: "Tags", kind: "texts", hint: "key:value, key:value", isRare: true },
  { name: "failure_type", label: "Failure", kind: "text", hint: "ValueError", isRare: true },
  { name: "parent_instance_id", label: "Parent", kind: "text", isRare: true },
  { name: "created_from", label: "Created from", kind: "time", isRare: true },
  { name: "created_to", label: "Created to", kind: "time", isRare: true },
  { name: "updated_from", label: "Updated from", kind: "time", isRare: true },
  { name: "updated_to", label: "Updated to", kind: "time", isRare: true },
  { name: "completed_from", label: "Ended from", kind: "time", isRare: true },
  { name: "completed_to", label: "Ended to", kind: "time", isRare: true },
];

/** What says how the list is shown, rather than what is in it. */
const FORM = ["order"];

/** @type {import("./main.js").Show} */
export function showInstances(place, address, signal) {
  return new InstanceList(place, address.query, signal).put;
}

class InstanceList {
  constructor(place, query, signal) {
    this.signal = signal;
    /** @type {Set<string>} */
    this.selected = new Set();
    this.items = [];
    this.cursor = null;
    /** @type {symbol | null} */
    this.reading = null;
    /** @type {import("./stream.js").Change[]} what is told while a page is read, which may be older */
    this.told = [];
    this.arrived = 0;
    this.countedAt = 0;
    this.counting = 0;
    this.turn = new AbortController();
    this.ended = this.turn.signal;
    this.conditions = new URLSearchParams(query);
    this.filters = new Filters(CONDITIONS, (given) => goTo(addressOf("instances", null, given)), signal);
    this.count = element("strong", { id: "count" }, "…");
    this.bar = element("div.bar", { role: "toolbar", "aria-label": "Actions" });
    this.list = new VirtualList(
      {
        label: "Instances",
        headings: ["", "Status", "Instance", "Orchestration", "Created", "Took", "Waits for, or says"],
        keyOf: (status) => status.instance_id,
        cellsOf: (status) => this.cells(status),
        heightOf: () => (NARROW.matches ? 68 : 36),
        open: (status) => goTo(addressOf("instances", status.instance_id)),
        mark: mayWrite() ? (status) => this.select(status) : undefined,
        isMarked: (status) => this.selected.has(status.instance_id),
        kindOf: () => "instance",
        nearEnd: () => this.readMore(),
      },
      signal,
    );
    NARROW.addEventListener("change", () => this.list.drawSoon(), { signal });
    const views = viewsControl(
      () => this.filters.query,
      (view) => goTo(addressOf("instances", null, view)),
    );
    fill(
      place,
      element("h1.hidden", {}, "Instances"),
      this.filters.place,
      element("div.list-top", {}, element("span", {}, this.count, " instances"), views, this.bar),
      this.list.view,
    );
    this.put = this.put.bind(this);
    this.put({ query });
  }

  /** Show what another query finds. */
  put({ query }) {
    this.turn.abort();
    this.turn = new AbortController();
    this.ended = AbortSignal.any([this.turn.signal, this.signal]);
    this.filters.put(query);
    this.conditions = new URLSearchParams(query);
    for (const name of FORM) this.conditions.delete(name);
    this.isOldest = query.get("order") === "oldest";
    this.reading = null;
    this.selected.clear();
    this.showBar();
    follow(
      this.conditions,
      { changes: (changes) => this.take(changes), reset: () => this.readFirst() },
      this.ended,
    );
  }

  readFirst() {
    this.told = [];
    this.arrived = 0;
    return this.readPage(null, []);
  }

  readMore() {
    if (!this.reading && this.cursor !== null) this.readPage(this.cursor, this.items);
  }

  /** Read a page behind what is there; one that is asked for later takes its place. */
  async readPage(cursor, before) {
    const reading = Symbol("a page");
    this.reading = reading;
    try {
      const page = await this.read(cursor);
      if (this.reading !== reading) return;
      const known = new Set(before.map((status) => status.instance_id));
      this.items = [...before, ...page.items.filter((one) => !known.has(one.instance_id))];
      this.cursor = page.cursor;
      this.list.show(this.items);
    } catch (error) {
      if (this.reading !== reading) return;
      this.reading = null;
      if (cursor === null) this.showNothing();
      complain(error);
      return;
    }
    this.reading = null;
    this.take(this.told.splice(0));
  }

  showNothing() {
    this.items = [];
    this.cursor = null;
    this.list.show([]);
    fill(this.count, "–");
  }

  read(cursor) {
    const query = new URLSearchParams(this.conditions);
    query.set("order", this.isOldest ? "oldest" : "newest");
    query.set("limit", String(PAGE));
    query.set("payloads", "false");
    if (cursor) query.set("cursor", cursor);
    return get("instances", { query, signal: this.ended });
  }

  /** Take in what has become of some: it is put where it belongs, or taken out. */
  take(changes) {
    if (this.reading) {
      this.told.push(...changes);
      return;
    }
    const latest = new Map(changes.map((change) => [change.instance_id, change]));
    const items = [];
    for (const status of this.items) {
      const change = latest.get(status.instance_id);
      if (change === undefined) items.push(status);
      else if (change.kind === "changed" && change.status.created_time === status.created_time) {
        items.push(change.status);
        latest.delete(status.instance_id);
      } else if (change.kind !== "changed") this.selected.delete(status.instance_id);
    }
    for (const { kind, status } of latest.values()) if (kind === "changed") this.insert(items, status);
    this.items = items;
    this.list.show(items);
    this.countSoon();
    this.showBar();
    if (this.arrived > ARRIVED_MAX && this.list.top < TOP_ROWS) this.readFirst();
  }

  insert(items, status) {
    const isBefore = this.isOldest
      ? (one) => one.created_time > status.created_time
      : (one) => one.created_time < status.created_time;
    const at = items.findIndex(isBefore);
    if (at >= 0 || this.cursor === null) this.arrived += 1;
    if (at >= 0) items.splice(at, 0, status);
    else if (this.cursor === null) items.push(status); // else it comes with a later page
  }

  countSoon() {
    if (this.counting) return;
    const wait = Math.max(this.countedAt + COUNT_MS - Date.now(), 0);
    this.counting = setTimeout(() => {
      this.counting = 0;
      this.countedAt = Date.now();
      if (!this.signal.aborted) this.readCount();
    }, wait);
  }

  async readCount() {
    const query = new URLSearchParams(this.conditions);
    query.set("limit", "0");
    query.set("count", "true");
    const { countedAt } = this;
    try {
      const found = await get("instances", { query, signal: this.ended });
      if (countedAt === this.countedAt) fill(this.count, found.count.toLocaleString());
    } catch (error) {
      complain(error);
    }
  }

  select(status) {
    const id = status.instance_id;
    if (!this.selected.delete(id)) this.selected.add(id);
    this.list.drawSoon();
    this.showBar();
  }

  showBar() {
    if (!mayWrite()) return;
    const count = this.selected.size;
    if (this.bar.dataset.count === String(count)) return;
    this.bar.dataset.count = String(count);
    const all = element("button.small", { type: "button", onclick: () => this.selectAll() }, "Select all that are loaded");
    const none = element("button.small", { type: "button", onclick: () => this.selectNone() }, "Select none");
    fill(
      this.bar,
      element("span.quiet", {}, count ? `${count.toLocaleString()} selected:` : "All that the filter finds:"),
      ACTIONS.filter((action) => action.isForMany).map((action) =>
        element(
          action.isDangerous ? "button.small.danger" : "button.small",
          { type: "button", onclick: () => this.act(action) },
          action.label,
        ),
      ),
      count ? none : all,
    );
  }

  selectAll() {
    this.selected = new Set(this.items.map((status) => status.instance_id));
    this.list.drawSoon();
    this.showBar();
  }

  selectNone() {
    this.selected.clear();
    this.list.drawSoon();
    this.showBar();
  }

  async act(action) {
    const isDone = this.selected.size
      ? await actOnMany(action, { ids: [...this.selected] })
      : await actOnMany(action, { query: this.conditions });
    if (isDone) this.selectNone();
  }

  cells(status) {
    const id = status.instance_id;
    const box = element("input", {
      type: "checkbox",
      tabindex: "-1",
      checked: this.selected.has(id),
      "aria-label": `Select ${id}`,
      onchange: () => this.select(status),
    });
    const took = hasEnded(status) && status.completed_time ? Date.parse(status.completed_time) - Date.parse(status.created_time) : null;
    return [
      cell("mark", mayWrite() && box),
      cell("status", badge(status)),
      cell("id", element("a", { href: addressOf("instances", id), tabindex: "-1" }, id)),
      cell("name", status.name, status.version && element("span.quiet", {}, ` ${status.version}`)),
      cell("created", shownTime(status.created_time)),
      cell("took", took === null ? "" : span(Math.max(took, 0))),
      cell("says", said(status)),
    ];
  }
}

/** Say in a line what an instance waits for, and at which attempt of it it is. */
function waitsOf(status) {
  if (hasEnded(status) || !status.waiting_for?.length) return "";
  const attempt = status.attempts > 1 ? `, attempt ${status.attempts}` : "";
  return `waits for ${status.waiting_for.join(", ")}${attempt}`;
}

/** Say in a line what there is to say of an instance. */
function said(status) {
  if (status.parked) return status.parked.reason;
  if (status.suspended) return `suspended: ${status.suspended}`;
  if (status.failure) return `${status.failure.error_type}: ${status.failure.message}`;
  const waits = waitsOf(status);
  if (waits) return waits;
  if (status.custom_status !== null) return brief(status.custom_status);
  return Object.entries(status.tags)
    .map(([name, value]) => `${name}:${value}`)
    .join(" ");
}

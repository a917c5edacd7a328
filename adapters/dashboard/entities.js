/** The list of entities: by every filter, with their state, who waits for them, what has failed. */

import { addressOf, goTo } from "./address.js";
import { get } from "./api.js";
import { element, fill } from "./element.js";
import { Filters } from "./filters.js";
import { complain } from "./notice.js";
import { actorLink } from "./status.js";
import { shownTime } from "./times.js";
import { brief } from "./value.js";
import { VirtualList, cell } from "./virtual.js";

const PAGE = 200;
/** Milliseconds after which the first page is read again: no stream tells of entities. */
const AGAIN_MS = 3_000;

const NARROW = matchMedia("(max-width: 720px)");

/** @type {import("./filters.js").Condition[]} */
const CONDITIONS = [
  { name: "name", label: "Name", kind: "text" },
  { name: "key_prefix", label: "Key begins with", kind: "text" },
  { name: "locked", label: "Locked", kind: "choice", options: ["", "true", "false"] },
  { name: "parked", label: "Parked", kind: "choice", options: ["", "true", "false"] },
  { name: "include_empty", label: "Without state too", kind: "choice", options: ["false", "true"] },
  { name: "updated_from", label: "Changed from", kind: "time", isRare: true },
  { name: "updated_to", label: "Changed to", kind: "time", isRare: true },
];

/** @type {import("./main.js").Show} */
export function showEntities(place, address, signal) {
  return new EntityList(place, address.query, signal).put;
}

class EntityList {
  constructor(place, query, signal) {
    this.signal = signal;
    this.items = [];
    this.cursor = null;
    this.isReading = false;
    this.turn = new AbortController();
    this.ended = this.turn.signal;
    this.filters = new Filters(CONDITIONS, (given) => goTo(addressOf("entities", null, given)), signal);
    this.count = element("strong", { id: "count" }, "…");
    this.list = new VirtualList(
      {
        label: "Entities",
        headings: ["Entity", "State", "Waiting", "Locked by", "Failed", "Changed"],
        keyOf: (status) => status.entity_id,
        cellsOf: (status) => this.cells(status),
        heightOf: () => (NARROW.matches ? 68 : 36),
        open: (status) => goTo(addressOf("entities", status.entity_id)),
        kindOf: () => "entity",
        nearEnd: () => this.readMore(),
      },
      signal,
    );
    NARROW.addEventListener("change", () => this.list.drawSoon(), { signal });
    fill(
      place,
      element("h1.hidden", {}, "Entities"),
      this.filters.place,
      element("div.list-top", {}, element("span", {}, this.count, " entities")),
      this.list.view,
    );
    this.put = this.put.bind(this);
    this.put({ query });
    const timer = setInterval(() => this.readAgain(), AGAIN_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  put({ query }) {
    this.turn.abort();
    this.turn = new AbortController();
    this.ended = AbortSignal.any([this.turn.signal, this.signal]);
    this.filters.put(query);
    this.conditions = query;
    this.readFirst();
  }

  async readFirst() {
    this.isReading = true;
    const { ended } = this;
    try {
      const page = await this.read(null);
      this.items = page.items;
      this.cursor = page.cursor;
      this.show();
    } catch (error) {
      if (!ended.aborted) fill(this.count, "–");
      complain(error);
    } finally {
      if (ended === this.ended) this.isReading = false;
    }
  }

  /** Read the first page again, unless one has gone further. */
  readAgain() {
    if (!document.hidden && !this.isReading && this.items.length <= PAGE) this.readFirst();
  }

  async readMore() {
    if (this.isReading || this.cursor === null) return;
    this.isReading = true;
    const { ended } = this;
    try {
      const page = await this.read(this.cursor);
      if (ended.aborted) return;
      this.items = [...this.items, ...page.items];
      this.cursor = page.cursor;
      this.show();
    } catch (error) {
      complain(error);
    } finally {
      if (ended === this.ended) this.isReading = false;
    }
  }

  read(cursor) {
    const query = new URLSearchParams(this.conditions);
    query.set("limit", String(PAGE));
    if (cursor) query.set("cursor", cursor);
    return get("entities", { query, signal: this.ended });
  }

  show() {
    const known = new Map(this.list.items.map((one) => [one.entity_id, one]));
    // A row that shows the same stays as it is.
    this.items = this.items.map((one) => {
      const before = known.get(one.entity_id);
      return before && JSON.stringify(before) === JSON.stringify(one) ? before : one;
    });
    this.list.show(this.items);
    fill(this.count, this.items.length.toLocaleString() + (this.cursor === null ? "" : "+"));
  }

  cells(status) {
    const waiters = status.lock_waiter_count;
    return [
      cell("id", element("a", { href: addressOf("entities", status.entity_id), tabindex: "-1" }, status.entity_id)),
      cell("says", status.parked ? `parked: ${status.parked.reason}` : status.exists ? brief(status.state, 300) : "no state"),
      cell("waiting", status.waiting || ""),
      cell("lock", status.locked_by && actorLink(status.locked_by), waiters > 0 && ` and ${waiters} wait`),
      cell("failed", status.failed_signals || ""),
      cell("created", shownTime(status.last_modified)),
    ];
  }
}

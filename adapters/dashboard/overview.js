/** The overview: how many instances stand where, how fast it goes, what is wrong, who is busy. */

import { addressOf } from "./address.js";
import { get, path, post } from "./api.js";
import { element, fill, refill } from "./element.js";
import { complain, say } from "./notice.js";
import { movePartition } from "./placement.js";
import { Rates } from "./rates.js";
import { mayWrite } from "./session.js";
import { STATUSES, actorLink } from "./status.js";
import { follow } from "./stream.js";
import { shownTime } from "./times.js";

/** Milliseconds between two readings of the hub's counters. */
const SAMPLE_MS = 2_000;
/** Milliseconds between two counts of instances, at the least. */
const COUNT_MS = 1_000;
const FAILURES = 8;
const HOTTEST = 8;
const WINDOWS = [1, 5, 15];

/** What is counted, and what finds it. */
const KINDS = /** @type {[string, Object<string, any>][]} */ ([
  ...STATUSES.map((status) => [status, { statuses: status }]),
  ["Parked", { parked: true }],
]);

/** @type {import("./main.js").Show} */
export function showOverview(place, _, signal) {
  const overview = new Overview(signal);
  fill(place, overview.parts);
  overview.sample();
  follow({}, { changes: () => overview.countSoon(), reset: () => overview.countSoon() }, signal);
}

class Overview {
  constructor(signal) {
    this.signal = signal;
    this.rates = new Rates();
    this.timer = 0;
    this.isStale = false;
    this.isCounting = false;
    this.countedAt = 0;
    this.took = 0;
    this.tiles = element("div.tiles", { id: "tiles" }, KINDS.map((kind) => tile(kind, "…")));
    this.first = element("div", { id: "first-steps" });
    this.windows = element("tbody");
    this.failures = element("tbody", { id: "failures" });
    this.parked = element("tbody", { id: "parked" });
    this.partitions = element("tbody", { id: "partitions" });
    this.shards = element("tbody");
    this.hottest = element("tbody", { id: "hottest" });
    signal.addEventListener("abort", () => clearTimeout(this.timer));
    this.parts = [
      element("h1.hidden", {}, "Overview"),
      this.tiles,
      this.first,
      element(
        "div.cards",
        {},
        card("Over the last minutes", table(["", "Started", "Completed", "Failed"], this.windows), this.rates.drawing),
        card("Failed last", table(["Instance", "Why", "When"], this.failures)),
        card("Parked", table(["Actor", "Why", ""], this.parked)),
        card("Hottest actors", table(["Actor", "Messages", "Waiting"], this.hottest)),
        card(
          "Partitions",
          table(["", "Shard", "Messages/s", "Turns", "Waiting", "In memory", "Stored", ""], this.partitions),
        ),
        card("Shards", table(["", "Process", "Busy", "Activities", "Partitions"], this.shards)),
      ),
    ];
  }

  /** Read the hub's counters now, and again and again. */
  async sample() {
    try {
      if (!document.hidden) {
        const told = await get("shards", { query: { hottest: HOTTEST }, signal: this.signal });
        this.rates.add(told, performance.now());
        this.showCounters(told);
      }
    } catch (error) {
      complain(error);
    }
    if (this.signal.aborted) return;
    setTimeout(() => !this.signal.aborted && this.sample(), SAMPLE_MS);
  }

  /** Count the instances when it is time: something has changed. */
  countSoon() {
    this.isStale = true;
    if (this.isCounting || this.signal.aborted) return;
    this.isCounting = true;
    // Where counting takes long it is done seldom.
    const wait = Math.max(this.countedAt + Math.max(COUNT_MS, 10 * this.took) - Date.now(), 0);
    this.timer = setTimeout(() => this.countAll(), wait);
  }

  async countAll() {
    const began = Date.now();
    this.isStale = false;
    try {
      await this.readTiles();
      await Promise.all([this.readWindows(), this.readFailures(), this.readParked()]);
    } catch (error) {
      complain(error);
    }
    this.countedAt = Date.now();
    this.took = this.countedAt - began;
    this.isCounting = false;
    if (this.isStale) this.countSoon(); // it has changed meanwhile
  }

  async count(conditions) {
    const query = { ...conditions, limit: 0, count: true };
    return (await get("instances", { query, signal: this.signal })).count;
  }

  async readTiles() {
    const counts = await Promise.all(KINDS.map(([, conditions]) => this.count(conditions)));
    refill(this.tiles, KINDS.map((kind, at) => tile(kind, shownCount(counts[at]))));
    const isEmpty = counts.every((count) => count === 0) && (await this.hasNoEntity());
    refill(this.first, isEmpty && (await this.firstSteps()));
  }

  async hasNoEntity() {
    const query = { limit: 1, states: false };
    return (await get("entities", { query, signal: this.signal })).items.length === 0;
  }

  /** Say what to do where nothing has been done yet, in words of the application that is served. */
  async firstSteps() {
    const told = await get("application", { signal: this.signal });
    const [name] = Object.keys(told.orchestrations);
    const [entity] = Object.keys(told.entities);
    const [operation] = entity === undefined ? [] : told.entities[entity];
    const commands = [
      name !== undefined && `perdure start ${name} --wait 10`,
      operation !== undefined && `perdure call @${entity}@first ${operation}`,
    ].filter((one) => one !== false);
    const text =
      commands.length === 0
        ? "The application that is served has no orchestrations and no entities yet. Give it one, and start it here."
        : "Nothing has been started here yet. In a terminal, in the folder where the hub was started:";
    return card(
      "First steps",
      element("p", {}, text),
      commands.map((one) => element("pre", {}, element("code", {}, one))),
      commands.length > 0 &&
        element("p.quiet", {}, "An input stands behind the name, as JSON; what comes of it is seen here at once."),
    );
  }

  async readWindows() {
    const rows = await Promise.all(
      WINDOWS.map(async (minutes) => {
        const since = new Date(Date.now() - minutes * 60_000).toISOString();
        const counts = await Promise.all([
          this.count({ created_from: since }),
          this.count({ completed_from: since, statuses: "Completed" }),
          this.count({ completed_from: since, statuses: "Failed" }),
        ]);
        return [minutes === 1 ? "1 minute" : `${minutes} minutes`, ...counts.map(shownCount)];
      }),
    );
    refill(this.windows, rows.map(row));
  }

  async readFailures() {
    const query = { statuses: "Failed", order: "newest", limit: FAILURES, payloads: false };
    const { items } = await get("instances", { query, signal: this.signal });
    refill(
      this.failures,
      items.length === 0 && nothing(3, "Nothing has failed."),
      items.map((status) =>
        row([
          actorLink(status.instance_id),
          status.failure ? `${status.failure.error_type}: ${status.failure.message}` : "",
          shownTime(status.completed_time),
        ]),
      ),
    );
  }

  async readParked() {
    const { instances, entities } = await get("parked", { query: { limit: 10 }, signal: this.signal });
    const actors = [
      ...instances.items.map((status) => [status.instance_id, status.parked]),
      ...entities.items.map((status) => [status.entity_id, status.parked]),
    ];
    const more = instances.cursor || entities.cursor;
    refill(
      this.parked,
      actors.length === 0 && nothing(3, "No actor is parked."),
      actors.map(([id, why]) =>
        row([
          actorLink(id),
          `${why.type}: ${why.reason}`,
          mayWrite() && button("Retry", () => this.retry(id), `Retry ${id}`),
        ]),
      ),
      more && nothing(3, "There are more."),
    );
  }

  async retry(id) {
    try {
      const [, name, ...key] = id.split("@");
      await post(id.startsWith("@") ? path`entities/${name}/${key.join("@")}/retry` : path`instances/${id}/retry`, { body: {} });
      say(`${id} tries again`);
      this.countSoon();
    } catch (error) {
      complain(error);
    }
  }

  showCounters({ partitions, shards, silent }) {
    const most = Math.max(...partitions.map((one) => this.rates.of(one.index)), 1);
    refill(
      this.partitions,
      partitions.map((one) => this.partitionRow(one, most, shards.length + silent.length)),
    );
    refill(
      this.shards,
      shards.map((one) =>
        row([
          one.index,
          one.pid,
          meter(this.rates.busy(one.index), `${Math.round(100 * this.rates.busy(one.index))} %`),
          shownCount(one.activities),
          one.partitions.join(", "),
        ]),
      ),
      silent.map((one) =>
        row([one.index, badgeOf("failed", "silent"), `for ${Math.round(one.silent_s)} s`, "", ""]),
      ),
    );
    this.showHottest(partitions);
  }

  partitionRow(one, most, shardCount) {
    const rate = this.rates.of(one.index);
    const canMove = mayWrite() && shardCount > 1;
    return row([
      one.index,
      one.shard,
      meter(rate / most, shownCount(Math.round(rate))),
      shownCount(one.turns),
      shownCount(one.waiting),
      shownCount(one.activations),
      shownBytes(one.stored_bytes),
      canMove && button("Move…", () => this.move(one), `Move partition ${one.index}`),
    ]);
  }

  async move(partition) {
    await movePartition(partition.index, "shard", "It moves when its turns under way have ended.");
  }

  showHottest(partitions) {
    const waiting = new Map(partitions.flatMap((one) => one.fullest));
    const taken = new Map(partitions.flatMap((one) => one.hottest));
    for (const id of waiting.keys()) if (!taken.has(id)) taken.set(id, 0);
    const first = [...taken].sort((one, other) => other[1] - one[1]).slice(0, HOTTEST);
    refill(
      this.hottest,
      first.length === 0 && nothing(3, "No actor is in memory."),
      first.map(([id, count]) => row([actorLink(id), shownCount(count), shownCount(waiting.get(id) ?? 0)])),
    );
  }
}

function tile([name, conditions], count) {
  return element(
    `a.tile.is-${name.toLowerCase()}`,
    { href: addressOf("instances", null, conditions), "data-status": name },
    element("strong", {}, count),
    element("span", {}, name),
  );
}

function card(title, ...children) {
  return element("section.card", {}, element("h2", {}, title), children);
}

function table(headings, body) {
  return element(
    "div.scroll",
    { tabindex: "0", role: "group", "aria-label": "Table" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, headings.map((text) => element(text ? "th" : "td", {}, text)))),
      body,
    ),
  );
}

function row(cells) {
  return element("tr", {}, cells.map((one) => element("td", {}, one)));
}

function nothing(columns, text) {
  return element("tr", {}, element("td.quiet", { colspan: columns }, text));
}

function button(text, onclick, label) {
  return element("button.small", { type: "button", onclick, "aria-label": label }, text);
}

function meter(part, text) {
  const bar = element("span.meter-bar", { style: { width: `${Math.min(100 * part, 100)}%` } });
  return element("span.meter", {}, bar, element("span.meter-text", {}, text));
}

function badgeOf(kind, text) {
  return element(`span.badge.is-${kind}`, {}, text);
}

function shownCount(count) {
  return count.toLocaleString();
}

function shownBytes(bytes) {
  if (bytes < 1_000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1_000).toFixed(0)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

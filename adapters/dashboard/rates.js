/** How fast a hub goes: what its counters gained between two readings, and a drawing of that. */

import { drawn, element, fill } from "./element.js";

/** Readings that are drawn. */
const KEPT = 90;
const WIDTH = 360;
const HEIGHT = 70;

export class Rates {
  constructor() {
    /** @type {number[]} */
    this.messages = [];
    /** @type {Map<number, number>} */
    this.partitions = new Map();
    /** @type {Map<number, number>} */
    this.shards = new Map();
    this.last = null;
    this.line = drawn("polyline", { class: "line" });
    this.area = drawn("polygon", { class: "area" });
    this.words = element("figcaption", {}, "…");
    this.drawing = element(
      "figure.rates",
      {},
      drawn(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        this.area,
        this.line,
      ),
      this.words,
    );
  }

  /**
   * Take in a reading.
   * @param {any} told
   * @param {number} now in milliseconds
   */
  add(told, now) {
    const { last } = this;
    this.last = { told, now };
    if (last === null) return;
    const seconds = Math.max((now - last.now) / 1_000, 0.001);
    const before = new Map(last.told.partitions.map((one) => [one.index, one]));
    let sum = 0;
    let turns = 0;
    for (const one of told.partitions) {
      const gained = Math.max(one.messages - (before.get(one.index)?.messages ?? one.messages), 0);
      turns += Math.max(one.turns - (before.get(one.index)?.turns ?? one.turns), 0);
      sum += gained;
      this.partitions.set(one.index, gained / seconds);
    }
    const busy = new Map(last.told.shards.map((one) => [one.index, one.busy_s]));
    for (const { index, busy_s } of told.shards) {
      this.shards.set(index, Math.max(busy_s - (busy.get(index) ?? busy_s), 0) / seconds);
    }
    this.messages.push(sum / seconds);
    if (this.messages.length > KEPT) this.messages.shift();
    this.draw(turns / seconds);
  }

  /** Messages a second that a partition takes. */
  of(partition) {
    return this.partitions.get(partition) ?? 0;
  }

  /** The part of the time that a shard spends in turns. */
  busy(shard) {
    return this.shards.get(shard) ?? 0;
  }

  draw(turns) {
    const most = Math.max(...this.messages, 1);
    const points = this.messages.map((rate, index) => {
      const x = WIDTH - (this.messages.length - 1 - index) * (WIDTH / (KEPT - 1));
      return `${x.toFixed(1)},${(HEIGHT - 2 - (rate / most) * (HEIGHT - 6)).toFixed(1)}`;
    });
    const from = points[0].split(",")[0];
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", `${from},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`);
    const now = this.messages[this.messages.length - 1];
    fill(
      this.words,
      `${whole(now)} messages/s, ${whole(turns)} turns/s; at most ${whole(Math.max(...this.messages))} messages/s since this page is open`,
    );
  }
}

function whole(rate) {
  return Math.round(rate).toLocaleString();
}

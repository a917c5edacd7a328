/** An instance's history, as far as it has been read: the last page first, more when asked for. */

import { get, path } from "./api.js";

/** Events that are read at a time: of the end at first, and of what was before when asked for. */
const PAGE = 500;
const EARLIER = 2_000;

/**
 * @typedef {object} HistoryEvent
 * @property {number} seq its number in the history, from 0
 * @property {string} event_type
 * @property {string} timestamp
 * @property {Object<string, any>} fields
 */

export class History {
  /**
   * @param {string} id of the instance
   * @param {AbortSignal} signal
   */
  constructor(id, signal) {
    this.where = path`instances/${id}/history`;
    this.signal = signal;
    /** @type {HistoryEvent[]} */
    this.events = [];
    this.total = 0;
    /** @type {Promise<void> | null} */
    this.reading = null;
  }

  /** How many events lie before what has been read. */
  get earlier() {
    return this.events.length ? this.events[0].seq : 0;
  }

  /** Read the end anew, since the history is another one. */
  restart() {
    return this.inTurn(async () => {
      const page = await this.ask({ order: "newest", limit: PAGE });
      this.events = page.items.map((event, at) => ({ ...event, seq: page.first - at })).reverse();
      this.total = page.total;
    });
  }

  /** Read what has come since. */
  readLater() {
    return this.inTurn(async () => {
      if (!this.events.length) return;
      let more = true;
      while (more) {
        const after = this.events[this.events.length - 1].seq;
        const page = await this.ask({ order: "oldest", limit: EARLIER, after });
        this.events = [...this.events, ...page.items.map((event, at) => ({ ...event, seq: page.first + at }))];
        this.total = page.total;
        more = page.after !== null;
      }
    });
  }

  /** Read some of what lies before. */
  readEarlier() {
    return this.inTurn(async () => {
      if (!this.earlier) return;
      const page = await this.ask({ order: "newest", limit: EARLIER, after: this.earlier });
      const before = page.items.map((event, at) => ({ ...event, seq: page.first - at })).reverse();
      this.events = [...before, ...this.events];
    });
  }

  ask(query) {
    return get(this.where, { query, signal: this.signal });
  }

  /** Read one after the other, so that no two pages are put together wrongly. */
  async inTurn(read) {
    while (this.reading) await this.reading.catch(() => {});
    this.reading = read();
    try {
      await this.reading;
    } finally {
      this.reading = null;
    }
  }
}

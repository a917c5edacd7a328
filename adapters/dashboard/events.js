/** The events of a history as they are stored, one on each row. */

import { element, fill } from "./element.js";
import { complain } from "./notice.js";
import { exact } from "./times.js";
import { brief, shownValue } from "./value.js";
import { VirtualList, cell } from "./virtual.js";

export class EventList {
  /**
   * @param {import("./history.js").History} history
   * @param {AbortSignal} signal
   */
  constructor(history, signal) {
    this.history = history;
    this.detail = element("div.detail");
    this.text = element("input", { type: "text", "aria-label": "Text", placeholder: "Type or text" });
    this.text.addEventListener("input", () => this.show());
    this.earlier = element("button.small", { type: "button", hidden: true });
    this.earlier.addEventListener("click", () => history.readEarlier().then(() => this.show(), complain));
    this.list = new VirtualList(
      {
        label: "History",
        headings: ["#", "When", "Event", "Fields"],
        keyOf: (event) => String(event.seq),
        heightOf: () => 28,
        open: (event) => this.pick(event),
        kindOf: () => "event",
        cellsOf: (event) => [
          cell("seq", event.seq),
          cell("when", exact(event.timestamp).slice(11)),
          cell(
            "type",
            element("button.link", { type: "button", tabindex: "-1", onclick: () => this.pick(event) }, event.event_type),
          ),
          cell("says", brief(event.fields, 300)),
        ],
      },
      signal,
    );
    this.place = element(
      "div.timeline",
      {},
      element("div.list-top", {}, this.text, this.earlier),
      this.list.view,
      this.detail,
    );
  }

  show() {
    const text = this.text.value.trim().toLowerCase();
    const { events, earlier, total } = this.history;
    const fits = (event) => `${event.event_type} ${JSON.stringify(event.fields)}`.toLowerCase().includes(text);
    const found = text ? events.filter(fits) : events;
    this.list.show([...found].reverse());
    this.earlier.hidden = earlier === 0;
    this.earlier.textContent = `Show earlier events: ${earlier.toLocaleString()} of ${total.toLocaleString()}`;
  }

  pick(event) {
    const { seq, event_type: type, timestamp, fields } = event;
    fill(this.detail, shownValue(`${type}, #${seq}`, { timestamp, ...fields }));
  }
}

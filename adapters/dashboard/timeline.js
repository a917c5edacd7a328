/** The timeline: what an instance has called, as bars over time; waiting apart from running. */

import { callsOf } from "./calls.js";
import { element, fill } from "./element.js";
import { History } from "./history.js";
import { complain } from "./notice.js";
import { Scale } from "./scale.js";
import { actorLink } from "./status.js";
import { exact, shownTime, span } from "./times.js";
import { shownFailure, shownPairs, shownValue } from "./value.js";
import { VirtualList, cell } from "./virtual.js";

const KINDS = ["activity", "timer", "event", "child", "entity", "lock", "control"];
const MARKS = 5;
/** Bars of one row that are drawn at the most. */
const BARS_MAX = 400;
/** Milliseconds after which bars that go on are drawn anew. */
const GROW_MS = 1_000;

/**
 * @typedef {object} Row
 * @property {string} key
 * @property {number} depth
 * @property {import("./calls.js").Call} call of a group, one that stands for all
 * @property {import("./calls.js").Call[]} [members] of a group
 */

export class Timeline {
  /**
   * @param {History} history
   * @param {AbortSignal} signal
   */
  constructor(history, signal) {
    this.history = history;
    this.signal = signal;
    this.explanation = null;
    this.hasEnded = true;
    this.now = 0;
    /** @type {Map<string, History>} children that are shown inline */
    this.children = new Map();
    /** @type {Set<string>} groups that are shown with all that is in them */
    this.opened = new Set();
    this.scale = new Scale([], false);
    this.makeControls();
    this.marks = element("div.marks", { "aria-hidden": "true" });
    this.earlier = element("button.small", { type: "button", id: "earlier", hidden: true });
    this.earlier.addEventListener("click", () => this.readEarlier());
    this.list = new VirtualList(
      {
        label: "Timeline",
        keyOf: (row) => row.key,
        cellsOf: (row) => this.cells(row),
        heightOf: () => 28,
        open: (row) => this.pick(row),
        kindOf: (row) => `call is-${row.call.kind}${row.call.failed ? " has-failed" : ""}`,
      },
      signal,
    );
    this.detail = element("div.detail", { id: "detail" });
    this.place = element(
      "div.timeline",
      {},
      element("div.list-top", {}, this.controls, this.earlier),
      this.marks,
      this.list.view,
      legend(),
      this.detail,
    );
    const timer = setInterval(() => !this.hasEnded && !document.hidden && this.show(), GROW_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  makeControls() {
    this.text = element("input", { type: "text", "aria-label": "Text", placeholder: "Name or text", name: "text" });
    this.kind = choice("Kind", ["all kinds", ...KINDS]);
    this.onlyFailed = element("input", { type: "checkbox", name: "failed" });
    this.grouped = element("input", { type: "checkbox", name: "grouped" });
    this.even = element("input", { type: "checkbox", name: "even" });
    this.controls = element(
      "form.bar",
      {},
      this.text,
      this.kind,
      element("label.chip", {}, this.onlyFailed, "Failed"),
      element("label.chip", {}, this.grouped, "Grouped by name"),
      element("label.chip", { title: "Each thing that happened is as far from the next" }, this.even, "Waits cut short"),
    );
    this.controls.addEventListener("submit", (event) => event.preventDefault());
    this.controls.addEventListener("input", () => this.show());
  }

  /**
   * Take in where the instance stands, and what is under way.
   * @param {any} status
   * @param {any} explanation null where it has ended
   */
  refresh(status, explanation) {
    this.hasEnded = status.completed_time !== null;
    this.explanation = explanation;
    this.show();
  }

  show() {
    const { events } = this.history;
    // What an ended instance has left open was open until its end.
    this.now = this.hasEnded && events.length ? Date.parse(events[events.length - 1].timestamp) : Date.now();
    const calls = callsOf(events, this.explanation);
    const times = calls.flatMap((call) => call.parts.flatMap((part) => [part.from, part.to ?? part.from]));
    times.push(this.now);
    this.scale = new Scale(times, this.even.checked);
    const found = calls.filter((call) => this.fits(call));
    this.list.show(this.grouped.checked ? this.groups(found) : this.rows(found, 0));
    const { earlier, total } = this.history;
    this.earlier.hidden = earlier === 0;
    this.earlier.textContent = `Show earlier events: ${earlier.toLocaleString()} of ${total.toLocaleString()}`;
    this.showMarks();
  }

  fits(call) {
    if (this.kind.selectedIndex > 0 && call.kind !== this.kind.value) return false;
    if (this.onlyFailed.checked && !call.failed && !call.parts.some((part) => part.failed)) return false;
    const text = this.text.value.trim().toLowerCase();
    if (!text) return true;
    if (`${call.label} ${call.name}`.toLowerCase().includes(text)) return true;
    return call.events.some((event) => JSON.stringify(event.fields).toLowerCase().includes(text));
  }

  /** @returns {Row[]} */
  rows(calls, depth, prefix = "") {
    return calls.flatMap((call) => {
      const row = { key: prefix + call.key, depth, call };
      const child = call.kind === "child" && call.target ? this.children.get(call.target) : undefined;
      if (!child || depth > 8) return [row];
      return [row, ...this.rows(callsOf(child.events), depth + 1, `${row.key}/`)];
    });
  }

  /** @returns {Row[]} */
  groups(calls) {
    /** @type {Map<string, import("./calls.js").Call[]>} */
    const byName = new Map();
    for (const call of calls) {
      const name = `${call.kind} ${call.name}`;
      const members = byName.get(name);
      if (members) members.push(call);
      else byName.set(name, [call]);
    }
    return [...byName].flatMap(([name, members]) => {
      if (members.length === 1) return this.rows(members, 0);
      const failed = members.filter((one) => one.failed).length;
      const call = {
        ...members[0],
        label: `${members[0].name} × ${members.length.toLocaleString()}${failed ? `, ${failed} failed` : ""}`,
        failed: failed > 0,
        isGivenUp: false,
        attempts: 1,
        parts: members.flatMap((one) => one.parts),
      };
      const row = { key: `group ${name}`, depth: 0, call, members };
      return this.opened.has(row.key) ? [row, ...this.rows(members, 1)] : [row];
    });
  }

  cells({ call, depth, key, members }) {
    const { now } = this;
    const first = call.parts[0].from;
    const last = call.parts.reduce((most, part) => Math.max(most, part.to ?? now), first);
    const isOpen = !call.isGivenUp && call.parts.some((part) => part.to === null);
    const took = call.parts[0].kind === "point" && !members ? "" : span(last - first) + (isOpen ? " …" : "");
    const toggle = members
      ? this.toggle(this.opened.has(key), `calls of ${call.name}`, () => this.toggleGroup(key))
      : call.kind === "child" && call.target
        ? this.toggle(this.children.has(call.target), call.target, () => this.toggleChild(call.target))
        : null;
    const name = element("button.link", { type: "button", tabindex: "-1", onclick: () => this.pickAt(key) }, call.label);
    return [
      cell("call-name", element("span.indent", { style: { width: `${depth * 14}px` } }), toggle, icon(call.kind), name, call.attempts > 1 && element("span.attempts", {}, ` ${call.attempts} attempts`), call.isGivenUp && element("span.quiet", {}, " given up")),
      cell("track", call.parts.slice(-BARS_MAX).map((part) => this.bar(part, now, call.isGivenUp))),
      cell("took", took),
    ];
  }

  bar(part, now, isGivenUp) {
    const from = this.scale.at(part.from);
    const to = this.scale.at(part.to ?? now);
    const words = part.kind === "point" ? "" : `${part.kind}${part.failed ? ", failed" : ""}: ${span((part.to ?? now) - part.from)}`;
    return element(`span.part.is-${part.kind}${part.failed ? ".has-failed" : ""}${part.to === null && !isGivenUp ? ".is-open" : ""}`, {
      title: words,
      style: { left: `${from * 100}%`, width: `${(to - from) * 100}%` },
    });
  }

  toggle(isOpen, what, onclick) {
    const label = `${isOpen ? "Hide" : "Show"} ${what}`;
    return element("button.toggle", { type: "button", tabindex: "-1", "aria-label": label, "aria-expanded": String(isOpen), onclick }, isOpen ? "▾" : "▸");
  }

  toggleGroup(key) {
    if (!this.opened.delete(key)) this.opened.add(key);
    this.show();
  }

  async toggleChild(id) {
    if (!this.children.delete(id)) {
      const history = new History(id, this.signal);
      try {
        await history.restart();
      } catch (error) {
        complain(error);
        return;
      }
      this.children.set(id, history);
    }
    this.show();
  }

  /** Show what is known of the call whose row has this key now. */
  pickAt(key) {
    const row = this.list.items.find((one) => one.key === key);
    if (row) this.pick(row);
  }

  pick(row) {
    if (row.members) this.toggleGroup(row.key);
    else fill(this.detail, shownCall(row.call));
  }

  async readEarlier() {
    try {
      await this.history.readEarlier();
      this.show();
    } catch (error) {
      complain(error);
    }
  }

  showMarks() {
    const isLong = this.scale.to - this.scale.from > 86_400_000;
    fill(
      this.marks,
      this.scale.marks(MARKS).map(({ time, at }) => {
        const text = exact(new Date(time).toISOString());
        return element("span", { style: { left: `${at * 100}%` } }, isLong ? text.slice(5, 16) : text.slice(11));
      }),
    );
  }
}

/** Show all that is known of a call. */
function shownCall(call) {
  if (!call.events.length) return element("p", {}, `${call.label}, since `, shownTime(new Date(call.parts[0].from).toISOString()));
  const [first] = call.events;
  const last = call.events[call.events.length - 1];
  const { fields } = first;
  const runs = call.parts.filter((part) => part.kind === "running" && part.to !== null);
  return element(
    "section.call-detail",
    { "aria-label": "Details" },
    element("h2", {}, call.label),
    shownPairs([
      ["Kind", call.kind],
      ["Name", call.name],
      ["Leads to", call.target && actorLink(call.target)],
      ["Asked for", exact(first.timestamp)],
      ["Answered", last === first ? null : exact(last.timestamp)],
      ["Due", fields.due ? exact(fields.due) : null],
      ["Given up", call.isGivenUp ? "it has no answer, and none is waited for" : null],
      ["Attempts", call.attempts > 1 ? String(call.attempts) : null],
      ["Ran", runs.length ? runs.map((part) => span((part.to ?? 0) - part.from)).join(", ") : null],
    ]),
    "input" in fields && shownValue("Input", fields.input),
    "data" in fields && shownValue("Data", fields.data),
    "result" in last.fields && shownValue("Result", last.fields.result),
    call.events.filter((event) => event.fields.failure).map((event) => shownFailure(event.fields.failure)),
  );
}

function legend() {
  const entry = (kind, text) => element("span.entry", {}, element(`span.part.is-${kind}`), text);
  return element("div.legend", {}, entry("waiting", "waits"), entry("running", "runs"), entry("backoff", "until the next attempt"), entry("held", "holds a lock"), entry("running.has-failed", "failed"));
}

function icon(kind) {
  const marks = /** @type {Object<string, string>} */ ({ activity: "▶", timer: "◷", event: "◇", child: "↳", entity: "◈", lock: "▣", control: "•" });
  return element("span.icon", { title: kind, "aria-label": kind, role: "img" }, marks[kind]);
}

function choice(label, options) {
  return element("select", { "aria-label": label }, options.map((text) => element("option", { value: text }, text)));
}

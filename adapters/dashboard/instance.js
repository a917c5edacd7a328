/** One instance: its timeline, why it waits, its data, its history, its family, time travel. */

import { addressOf, goTo } from "./address.js";
import { ACTIONS, actOnOne } from "./actions.js";
import { Problem, get, path, post } from "./api.js";
import { ask } from "./dialog.js";
import { element, fill, refill } from "./element.js";
import { EventList } from "./events.js";
import { showFamily } from "./family.js";
import { History } from "./history.js";
import { complain, say } from "./notice.js";
import { mayWrite } from "./session.js";
import { actorLink, badge, hasEnded } from "./status.js";
import { follow } from "./stream.js";
import { Timeline } from "./timeline.js";
import { shownTime, span } from "./times.js";
import { Travel } from "./travel.js";
import { shownFailure, shownPairs, shownValue } from "./value.js";
import { showWaits } from "./waits.js";

const TABS = /** @type {[string, string][]} */ ([
  ["timeline", "Timeline"],
  ["waits", "Why it waits"],
  ["data", "Data"],
  ["history", "History"],
  ["family", "Family"],
  ["travel", "Time travel"],
]);

/** Milliseconds between two readings of an instance that changes all the time. */
const CALM_MS = 200;
/** Milliseconds after which what is under way is looked at again: no checkpoint says that. */
const LOOK_MS = 3_000;

/** @type {import("./main.js").Show} */
export function showInstance(place, address, signal) {
  const page = new InstancePage(place, /** @type {string} */ (address.id), signal);
  page.tab = tabOf(address);
  follow({ instance_id: page.id }, { changes: () => page.refresh(), reset: () => page.refresh() }, signal);
  return (other) => page.open(tabOf(other));
}

function tabOf(address) {
  const tab = address.query.get("tab");
  return TABS.some(([name]) => name === tab) ? tab : "timeline";
}

class InstancePage {
  constructor(place, id, signal) {
    this.id = id;
    this.signal = signal;
    this.tab = "timeline";
    this.status = null;
    this.explanation = null;
    /** @type {Promise<void> | null} */
    this.refreshing = null;
    this.isStale = false;
    this.history = new History(id, signal);
    this.timeline = new Timeline(this.history, signal);
    this.events = new EventList(this.history, signal);
    this.travel = new Travel(id, signal);
    this.waits = element("div.cards");
    this.data = element("div.cards");
    this.family = element("div.card");
    this.head = element("div.head");
    this.tabs = element("div.tabs", { role: "tablist", "aria-label": "What is shown" });
    this.panel = element("div.panel", { role: "tabpanel", id: "panel" });
    this.tabs.addEventListener("keydown", (event) => this.press(event));
    this.tabs.hidden = true;
    fill(this.tabs, TABS.map(([name, label]) => this.tabOf(name, label)));
    fill(place, this.head, this.tabs, this.panel);
    fill(this.head, element("h1", {}, id));
    const timer = setInterval(() => this.look(), LOOK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** Read all anew that has changed; what changes meanwhile is read once more behind it. */
  async refresh() {
    this.isStale = true;
    if (this.refreshing) return;
    while (this.isStale && !this.signal.aborted) {
      this.isStale = false;
      this.refreshing = this.read();
      await this.refreshing.catch((error) => this.fail(error));
      await new Promise((resolve) => setTimeout(resolve, CALM_MS));
      this.refreshing = null;
    }
  }

  async read() {
    const { signal } = this;
    const before = this.status;
    this.status = await get(path`instances/${this.id}`, { signal });
    const isSame = before && ["created_time", "execution", "rewinds"].every((one) => before[one] === this.status[one]);
    if (!isSame || this.status.history_length < this.history.total) await this.history.restart();
    else await this.history.readLater();
    this.explanation = hasEnded(this.status) ? null : await this.explain();
    this.showHead();
    await this.showTab();
  }

  explain() {
    return get(path`instances/${this.id}/explain`, { signal: this.signal });
  }

  fail(error) {
    if (this.signal.aborted) return;
    if (error instanceof Problem && error.status === 404) {
      this.status = null;
      this.tabs.hidden = true;
      fill(this.panel, element("p.card", {}, "There is no such instance: it was purged, or never was."));
      fill(this.head, element("h1", {}, this.id));
    } else complain(error);
  }

  /** Look again at what is under way. */
  async look() {
    if (!this.explanation || document.hidden || this.refreshing || this.tab === "travel") return;
    try {
      this.explanation = await this.explain();
      if (this.tab === "waits" || this.tab === "timeline") await this.showTab();
    } catch (error) {
      this.fail(error);
    }
  }

  open(tab) {
    this.tab = tab;
    if (this.status) this.showTab().catch((error) => this.fail(error));
  }

  showHead() {
    const { status } = this;
    const began = Date.parse(status.created_time);
    this.tabs.hidden = false;
    refill(
      this.head,
      element(
        "div.list-top",
        {},
        badge(status),
        element("h1", {}, this.id),
        element("span.quiet", {}, status.name, status.version && ` ${status.version}`),
        element("span.grow"),
        mayWrite() && this.buttons(),
      ),
      shownPairs([
        ["Created", shownTime(status.created_time)],
        ["Last turn", shownTime(status.last_updated_time)],
        ["Took", status.completed_time && span(Date.parse(status.completed_time) - began)],
        ["Parent", status.parent_instance_id && actorLink(status.parent_instance_id)],
        ["Execution", status.execution > 1 ? String(status.execution) : null],
        ["Rewound", status.rewinds ? String(status.rewinds) : null],
        ["Events", status.history_length.toLocaleString()],
        ["Tags", Object.entries(status.tags).map(([name, value]) => `${name}:${value}`).join(" ")],
        ["Parked", status.parked && `${status.parked.type}: ${status.parked.reason}`],
        ["Suspended", status.suspended],
        ["Failed", status.failure && `${status.failure.error_type}: ${status.failure.message}`],
      ]),
    );
  }

  tabOf(name, label) {
    const given = { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel" };
    return element("button.tab", { ...given, onclick: () => this.choose(name) }, label);
  }

  choose(tab) {
    goTo(addressOf("instances", this.id, tab === "timeline" ? {} : { tab }), { replace: true });
    document.getElementById(`tab-${tab}`)?.focus();
  }

  press(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([name]) => name === this.tab);
    this.choose(TABS[(at + step + TABS.length) % TABS.length][0]);
    event.preventDefault();
  }

  buttons() {
    const found = ACTIONS.filter((action) => action.fits(this.status)).map((action) =>
      element(
        action.isDangerous ? "button.small.danger" : "button.small",
        { type: "button", onclick: () => this.act(action) },
        action.label,
      ),
    );
    const raise = element("button.small", { type: "button", onclick: () => this.raise() }, "Raise event");
    return element("div.bar", { role: "toolbar", "aria-label": "Actions" }, !hasEnded(this.status) && raise, found);
  }

  async act(action) {
    const answer = await actOnOne(action, this.id);
    if (answer?.instance_id) goTo(addressOf("instances", answer.instance_id));
    else if (answer && action.name === "purge") goTo(addressOf("instances"));
    else if (answer) this.refresh();
  }

  async raise() {
    const awaited = this.explanation?.events?.[0]?.name ?? "";
    const given = await ask({
      title: `Raise an event for ${this.id}`,
      action: "Raise",
      fields: [
        { name: "name", label: "Name", required: true, value: awaited },
        { name: "data", label: "Data, as JSON", kind: "json" },
      ],
    });
    if (!given) return;
    try {
      await post(path`instances/${this.id}/events/${given.name}`, { body: given.data });
      say(`Raised ${given.name}`);
    } catch (error) {
      complain(error);
    }
  }

  async showTab() {
    for (const tab of this.tabs.children) {
      const isChosen = tab.id === `tab-${this.tab}`;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `tab-${this.tab}`);
    const place = {
      timeline: this.timeline.place,
      waits: this.waits,
      data: this.data,
      history: this.events.place,
      family: this.family,
      travel: this.travel.place,
    }[this.tab];
    if (this.panel.firstChild !== place) fill(this.panel, place);
    await this.fillTab();
  }

  async fillTab() {
    const { status, explanation } = this;
    if (this.tab === "timeline") this.timeline.refresh(status, explanation);
    else if (this.tab === "history") this.events.show();
    else if (this.tab === "family") await showFamily(this.family, status, this.signal);
    else if (this.tab === "travel") await this.travel.refresh(status);
    else if (this.tab === "waits") {
      if (explanation) showWaits(this.waits, explanation);
      else fill(this.waits, element("p.card", {}, "It waits for nothing: it has ended."));
    } else this.showData();
  }

  showData() {
    const { status } = this;
    fill(
      this.data,
      status.failure && shownFailure(status.failure),
      status.custom_status !== null && shownValue("Custom status", status.custom_status),
      shownValue("Input", status.input),
      hasEnded(status) && shownValue("Output", status.output),
    );
  }
}

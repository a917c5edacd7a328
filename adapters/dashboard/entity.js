/** One entity: its state, what it is busy with, who waits for its lock, and a form to reach it. */

import { addressOf, goTo } from "./address.js";
import { Problem, get, path, post, remove } from "./api.js";
import { ask, readJson } from "./dialog.js";
import { element, fill } from "./element.js";
import { complain, say } from "./notice.js";
import { mayWrite } from "./session.js";
import { actorLink } from "./status.js";
import { shownTime } from "./times.js";
import { shownPairs, shownValue } from "./value.js";

/** Milliseconds after which it is read again: no stream tells of entities. */
const AGAIN_MS = 2_000;
/** Seconds that a call is waited for. */
const WAIT_S = 20;

/** @type {import("./main.js").Show} */
export function showEntity(place, address, signal) {
  const page = new EntityPage(place, /** @type {string} */ (address.id), signal);
  page.refresh();
  const timer = setInterval(() => !document.hidden && page.refresh(), AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return () => {};
}

class EntityPage {
  constructor(place, id, signal) {
    this.id = id;
    this.signal = signal;
    const [, name, ...key] = id.split("@");
    this.name = name;
    this.key = key.join("@");
    this.shown = "";
    this.head = element("div.list-top", {}, element("h1", {}, id));
    this.facts = element("div.card");
    this.state = element("div");
    this.failures = element("div");
    this.answer = element("div", { "aria-live": "polite" });
    fill(
      place,
      this.head,
      element("div.cards", {}, this.facts, this.state, mayWrite() && this.form(), this.failures),
    );
  }

  async refresh() {
    const { name, key, signal } = this;
    try {
      const [status, told] = await Promise.all([
        get(path`entities/${name}/${key}`, { signal }),
        get(path`entities/${name}/${key}/explain`, { signal }),
      ]);
      const text = JSON.stringify([status, told]);
      if (text === this.shown) return;
      this.shown = text;
      this.show(status, told);
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.showNothing();
      else complain(error);
    }
  }

  showNothing() {
    this.shown = "";
    fill(this.facts, element("p", {}, "There is no such entity, or nobody has used it yet."));
    fill(this.state);
    fill(this.failures);
  }

  show(status, told) {
    fill(
      this.head,
      element("h1", {}, this.id),
      status.parked && element("span.badge.is-parked", {}, "Parked"),
      element("span.grow"),
      mayWrite() && status.parked && button("Retry", () => this.retry()),
      mayWrite() && button("Purge", () => this.purge(), "button.small.danger"),
    );
    const waiters = told.lock_waiters.flatMap((id, at) => [at ? ", " : "", actorLink(id)]);
    const unlisted = told.lock_waiter_count - told.lock_waiters.length;
    fill(
      this.facts,
      shownPairs([
        ["Changed", shownTime(status.last_modified)],
        ["Messages that wait", String(told.backlog)],
        ["Runs", told.running.map((one) => one.name).join(", ")],
        ["Locked by", told.locked_by && actorLink(told.locked_by)],
        ["Wait for the lock", waiters.length ? [waiters, unlisted > 0 && ` and ${unlisted} more`] : null],
        ["Failed signals", String(status.failed_signals)],
        ["Parked", status.parked && `${status.parked.type}: ${status.parked.reason}`],
        ["Partition", `${told.partition}, shard ${told.shard}`],
        ["In memory", told.is_in_memory ? "yes" : "no"],
      ]),
    );
    fill(this.state, status.exists ? shownValue("State", status.state) : element("p.card", {}, "It has no state."));
    fill(this.failures, status.failures.length > 0 && shownFailures(status.failures));
  }

  form() {
    const operations = element("datalist", { id: "operations" });
    const operation = element("input", { name: "operation", list: "operations", required: true, autocomplete: "off" });
    const input = element("textarea", { name: "input", rows: 4, spellcheck: "false" });
    const form = element(
      "form.card.reach",
      {},
      element("h2", {}, "Signal or call"),
      element("label.field", {}, element("span", {}, "Operation"), operation),
      operations,
      element("label.field", {}, element("span", {}, "Input, as JSON"), input),
      element(
        "div.buttons",
        {},
        element("button", { type: "submit", value: "signal" }, "Signal"),
        element("button.primary", { type: "submit", value: "call" }, "Call"),
      ),
      this.answer,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.reach(event.submitter?.value ?? "call", operation.value, input.value);
    });
    get("application", { signal: this.signal }).then(
      (told) =>
        fill(operations, (told.entities[this.name] ?? []).map((name) => element("option", { value: name }))),
      complain,
    );
    return form;
  }

  async reach(way, operation, text) {
    try {
      const body = readJson(text, "The input");
      const query = way === "call" ? { wait: WAIT_S } : {};
      const where = path`entities/${this.name}/${this.key}/${way}/${operation}`;
      const told = await post(where, { body, query, signal: this.signal });
      if (way === "signal") fill(this.answer, element("p", {}, `Signalled ${operation}.`));
      else if (!told.ended) fill(this.answer, element("p", {}, "It has not answered yet; it will run all the same."));
      else fill(this.answer, shownValue("Result", told.result ?? null));
      await this.refresh();
    } catch (error) {
      fill(this.answer, element("p.trouble", { role: "alert" }, /** @type {Error} */ (error).message));
    }
  }

  async retry() {
    await this.have(post(path`entities/${this.name}/${this.key}/retry`, { body: {} }), "It tries again");
  }

  async purge() {
    const given = await ask({
      title: `Purge ${this.id}?`,
      text: "Its state is deleted, whatever it is.",
      action: "Purge",
      isDangerous: true,
    });
    if (!given) return;
    if (await this.have(remove(path`entities/${this.name}/${this.key}`), `Purged ${this.id}`)) {
      goTo(addressOf("entities"));
    }
  }

  async have(done, words) {
    try {
      await done;
      say(words);
      await this.refresh();
      return true;
    } catch (error) {
      complain(error);
      return false;
    }
  }
}

function shownFailures(failures) {
  return element(
    "section.card",
    {},
    element("h2", {}, "Signals that failed last"),
    element(
      "ul.plain",
      {},
      [...failures].reverse().map((one) =>
        element(
          "li",
          {},
          shownTime(one.time),
          " ",
          element("strong", {}, one.operation),
          element("span.trouble", {}, ` ${one.error_type}: ${one.message}`),
        ),
      ),
    ),
  );
}

function button(text, onclick, kind = "button.small") {
  return element(kind, { type: "button", onclick }, text);
}

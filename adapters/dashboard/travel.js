/** Time travel: a slider over an instance's history, and its code as it stood at each step. */

import { get, path } from "./api.js";
import { element, fill } from "./element.js";
import { complain } from "./notice.js";
import { exact } from "./times.js";
import { shortPath, shownWaited } from "./waits.js";

/** Steps that are read at a time. */
const PAGE = 200;

export class Travel {
  /**
   * @param {string} id of the instance
   * @param {AbortSignal} signal
   */
  constructor(id, signal) {
    this.where = path`instances/${id}/trace`;
    this.signal = signal;
    /** @type {Map<number, Promise<any>>} */
    this.pages = new Map();
    this.shown = "";
    this.count = 0;
    this.wanted = 0;
    this.slider = element("input", { type: "range", min: "0", max: "0", value: "0", "aria-label": "Step" });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.back = element("button", { type: "button", "aria-label": "One step back" }, "‹");
    this.on = element("button", { type: "button", "aria-label": "One step on" }, "›");
    this.back.addEventListener("click", () => this.go(this.wanted - 1));
    this.on.addEventListener("click", () => this.go(this.wanted + 1));
    this.what = element("p.step", { id: "step", "aria-live": "polite" });
    this.source = element("div.sources");
    this.aside = element("div.aside");
    this.place = element(
      "div.travel",
      {},
      element("div.slider", {}, this.back, this.slider, this.on),
      this.what,
      element("div.columns", {}, this.source, this.aside),
    );
  }

  /**
   * Read anew if there are other steps now; who looks at the last one goes on to the new last one.
   * @param {any} status of the instance
   */
  async refresh({ created_time, execution, rewinds, history_length }) {
    const shown = [created_time, execution, rewinds, history_length].join();
    if (shown === this.shown) return;
    this.pages.clear();
    const page = await this.page(Math.floor(this.wanted / PAGE));
    this.shown = shown;
    const isAtEnd = this.wanted >= this.count - 1;
    this.count = page.event_count;
    this.slider.max = String(Math.max(this.count - 1, 0));
    await this.go(isAtEnd ? this.count - 1 : this.wanted);
  }

  page(number) {
    let page = this.pages.get(number);
    if (page === undefined) {
      page = this.read(number * PAGE, (number + 1) * PAGE);
      page.catch(() => this.pages.delete(number));
      this.pages.set(number, page);
    }
    return page;
  }

  /** Read a page; one whose steps say much comes in several parts. */
  async read(first, end) {
    const part = (after) => get(this.where, { query: { after, limit: end - after }, signal: this.signal });
    const page = await part(first);
    for (let next = page.next_after; next !== null && next < end; ) {
      const more = await part(next);
      page.steps.push(...more.steps);
      page.sources.push(...more.sources.filter((one) => !page.sources.some((other) => isSame(one, other))));
      page.code_trouble ??= more.code_trouble;
      next = more.next_after;
    }
    return page;
  }

  /**
   * Show a step.
   * @param {number} seq
   */
  async go(seq) {
    this.wanted = Math.max(0, Math.min(seq, this.count - 1));
    this.slider.value = String(this.wanted);
    const { wanted } = this;
    try {
      const page = await this.page(Math.floor(wanted / PAGE));
      const step = page.steps[wanted % PAGE];
      if (step === undefined || wanted !== this.wanted) return;
      const cause = step.cause === step.seq ? step : await this.stepOf(step.cause);
      if (wanted === this.wanted) await this.show(page, step, cause ?? step);
    } catch (error) {
      complain(error);
    }
  }

  async stepOf(seq) {
    return (await this.page(Math.floor(seq / PAGE))).steps[seq % PAGE];
  }

  async show(page, step, cause) {
    const decided = await Promise.all(cause.decided.map((seq) => this.stepOf(seq)));
    this.slider.setAttribute("aria-valuetext", `${step.seq + 1} of ${this.count}: ${step.event_type}`);
    fill(
      this.what,
      element("strong", {}, step.event_type),
      step.task_id !== null && ` #${step.task_id}`,
      ` · step ${(step.seq + 1).toLocaleString()} of ${this.count.toLocaleString()} · ${exact(step.timestamp)}`,
    );
    const standing = step.made_at.length ? step.made_at.slice(-1) : cause.branches.flatMap((one) => one.lines.slice(-1));
    this.showSources(page, step, cause, standing);
    fill(
      this.aside,
      part("It was open", cause.open.map((one) => [shownWaited(one), one.task_id === null ? "" : ` #${one.task_id}`]), cause.open_count),
      part(
        "Decided then",
        decided.filter(Boolean).map((one) => [
          element(
            "button.link",
            { type: "button", onclick: () => this.go(one.seq) },
            `${one.event_type} #${one.task_id ?? one.seq}`,
          ),
        ]),
        cause.decided.length,
      ),
      part("Its branches", cause.branches.map((one) => [one.function, one.waits_for && [": ", shownWaited(one.waits_for)]]), cause.branch_count),
    );
  }

  showSources(page, step, cause, standing) {
    const lines = [...step.made_at, ...cause.branches.flatMap((one) => one.lines)];
    const found = page.sources.filter((source) => lines.some((line) => isIn(line, source)));
    // A function inside of another is seen there.
    const sources = found.filter((one) => !found.some((other) => isInside(one, other)));
    fill(
      this.source,
      page.code_trouble && element("p.card.hindrance", {}, page.code_trouble),
      sources.length === 0 && element("p.quiet", {}, "Its code does not stand anywhere at this step."),
      sources.map((source) => shownSource(source, standing, step.made_at.length > 0)),
    );
    this.source.querySelector(".is-here")?.scrollIntoView({ block: "nearest" });
  }
}

function isIn(line, source) {
  const length = source.text === null ? Infinity : source.text.split("\n").length;
  return line.file === source.file && line.line >= source.first_line && line.line < source.first_line + length;
}

function isSame(source, other) {
  return source.file === other.file && source.first_line === other.first_line;
}

function isInside(source, other) {
  const lines = source.text?.split("\n").length ?? 0;
  const isLonger = (other.text?.split("\n").length ?? 0) > lines;
  return isLonger && isIn({ file: source.file, line: source.first_line }, other);
}

function shownSource(source, standing, isMade) {
  const here = new Set(standing.filter((line) => line.file === source.file).map((line) => line.line));
  const lines = (source.text ?? "(the file cannot be read)").trimEnd().split("\n");
  return element(
    "section.card.source",
    {},
    element("h3", {}, element("span.quiet", { title: source.file }, `${shortPath(source.file)} `), source.function),
    element(
      "div.code",
      { tabindex: "0", role: "group", "aria-label": `Source of ${source.function}` },
      lines.map((text, at) => {
        const number = source.first_line + at;
        const isHere = here.has(number);
        return element(
          isHere ? (isMade ? "div.code-line.is-here.is-made" : "div.code-line.is-here") : "div.code-line",
          isHere ? { "aria-current": "step" } : {},
          element("span.number", {}, number),
          element("code", {}, text || " "),
        );
      }),
    ),
  );
}

function part(title, items, count) {
  const more = count - items.length;
  return element(
    "section.card",
    {},
    element("h3", {}, `${title} (${count})`),
    items.length > 0 && element("ul.plain", {}, items.map((one) => element("li", {}, one))),
    more > 0 && element("p.quiet", {}, `and ${more.toLocaleString()} more`),
  );
}

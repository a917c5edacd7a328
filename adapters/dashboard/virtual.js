/** A list of any length, of which only the rows that are seen are in the page. */

import { element, refill } from "./element.js";

/** Rows beyond what is seen that are made beforehand. */
const BEYOND = 12;
let lists = 0;

/**
 * @template Item
 * @typedef {object} ListOptions
 * @property {string} label what the list is called
 * @property {(item: Item) => string} keyOf
 * @property {(item: Item, index: number) => Element[]} cellsOf
 * @property {() => number} heightOf the height of a row, in pixels
 * @property {string[]} [headings] of the columns
 * @property {(item: Item) => void} [open] what Enter does
 * @property {(item: Item) => void} [mark] what the space bar does
 * @property {(item: Item) => boolean} [isMarked]
 * @property {(item: Item) => string} [kindOf] a class of the row
 * @property {() => void} [nearEnd] is told when the end of the list comes into sight
 */

/** @template Item */
export class VirtualList {
  /**
   * @param {ListOptions<Item>} options
   * @param {AbortSignal} signal
   */
  constructor(options, signal) {
    this.options = options;
    /** @type {Item[]} */
    this.items = [];
    this.active = -1;
    this.name = `list-${(lists += 1)}`;
    /** @type {Map<string, {item: Item, at: number, row: any, isMarked: boolean}>} */
    this.made = new Map();
    this.frame = 0;
    this.rows = element("div.rows", { role: "rowgroup" });
    const headings = options.headings ?? [];
    this.head = element(
      "div.list-head",
      { role: "rowgroup" },
      element(
        "div.row",
        { role: "row" },
        headings.map((text) => element("span", { role: "columnheader" }, text)),
      ),
    );
    this.view = element(
      "div.list",
      { role: "grid", tabindex: "0", "aria-label": options.label, "aria-multiselectable": !!options.mark },
      headings.length > 0 && this.head,
      this.rows,
    );
    this.view.addEventListener("scroll", () => this.drawSoon(), { signal, passive: true });
    this.view.addEventListener("keydown", (event) => this.press(event), { signal });
    new ResizeObserver(() => this.drawSoon()).observe(this.view);
  }

  /**
   * Show other items.
   * @param {Item[]} items
   */
  show(items) {
    this.items = items;
    this.active = Math.min(this.active, items.length - 1);
    this.view.setAttribute("aria-rowcount", String(items.length));
    this.drawSoon();
  }

  /** The number of the first row that is seen. */
  get top() {
    return Math.floor(this.view.scrollTop / this.options.heightOf());
  }

  drawSoon() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const height = this.options.heightOf();
    const { scrollTop, clientHeight } = this.view;
    const first = Math.max(this.top - BEYOND, 0);
    const end = Math.min(Math.ceil((scrollTop + clientHeight) / height) + BEYOND, this.items.length);
    this.rows.style.height = `${this.items.length * height}px`;
    const seen = new Set();
    for (let at = first; at < end; at += 1) seen.add(this.place(at, height));
    for (const [key, { row }] of this.made) {
      if (seen.has(key)) continue;
      row.remove();
      this.made.delete(key);
    }
    if (end >= this.items.length - BEYOND) this.options.nearEnd?.();
  }

  /** Put the row of an item where it belongs, and make it first where that is needed. */
  place(at, height) {
    const item = this.items[at];
    const key = this.options.keyOf(item);
    const isMarked = this.options.isMarked?.(item) ?? false;
    let known = this.made.get(key);
    if (!known || known.item !== item || known.isMarked !== isMarked) {
      const row = this.make(item, at, isMarked);
      if (known && known.isMarked === isMarked) this.renew(known, row);
      else if (known) known.row.replaceWith(row);
      else this.rows.append(row);
      const kept = known?.isMarked === isMarked ? known : { at: -1, row };
      known = { item, at: kept.at, row: kept.row, isMarked };
      this.made.set(key, known);
    }
    if (known.at !== at || known.row.dataset.height !== String(height)) {
      known.at = at;
      known.row.dataset.height = String(height);
      known.row.style.transform = `translateY(${at * height}px)`;
      known.row.style.height = `${height}px`;
      known.row.setAttribute("aria-rowindex", String(at + 1));
    }
    known.row.classList.toggle("is-active", at === this.active);
    known.row.id = `${this.name}-${at}`;
    return key;
  }

  /** Have a row show what its item is now, and stay where it is. */
  renew(known, row) {
    known.row.className = row.className;
    known.row.setAttribute("aria-selected", row.getAttribute("aria-selected") ?? "false");
    refill(known.row, [...row.childNodes]);
  }

  make(item, at, isMarked) {
    const row = element(
      "div.row",
      { role: "row", "aria-selected": this.options.mark ? String(isMarked) : null },
      this.options.cellsOf(item, at),
    );
    const kind = this.options.kindOf?.(item);
    if (kind) row.classList.add(...kind.split(" "));
    return row;
  }

  press(event) {
    const { key } = event;
    if (event.target !== this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(Math.floor(this.view.clientHeight / this.options.heightOf()) - 1, 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page };
    const item = this.items[this.active];
    if (key in steps) this.activate(this.active + steps[key]);
    else if (key === "Home") this.activate(0);
    else if (key === "End") this.activate(this.items.length - 1);
    else if (key === "Enter" && item !== undefined) this.options.open?.(item);
    else if (key === " " && item !== undefined) this.options.mark?.(item);
    else return;
    event.preventDefault();
  }

  /**
   * Go to a row.
   * @param {number} at
   */
  activate(at) {
    if (!this.items.length) return;
    this.active = Math.max(0, Math.min(at, this.items.length - 1));
    const height = this.options.heightOf();
    const top = this.active * height;
    const seen = this.view.clientHeight - this.head.offsetHeight;
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top + height > this.view.scrollTop + seen) this.view.scrollTop = top + height - seen;
    this.draw();
    this.view.setAttribute("aria-activedescendant", `${this.name}-${this.active}`);
  }
}

/**
 * Make a cell of a row.
 * @param {string} kind its class
 * @param {...import("./element.js").Child} children
 */
export function cell(kind, ...children) {
  return element(`span.cell.${kind}`, { role: "gridcell" }, ...children);
}

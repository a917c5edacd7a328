/** The conditions of a list, as a form: what it says stands in the address. */

import { element } from "./element.js";

/**
 * @typedef {object} Condition
 * @property {string} name the parameter
 * @property {string} label
 * @property {"text" | "texts" | "number" | "time" | "choice" | "several"} kind `texts` are several
 *   texts in one field, with `, ` between them
 * @property {string[]} [options] of a choice, the first of which is the usual, or of several
 * @property {string} [hint]
 * @property {number} [least] of a number
 * @property {boolean} [isRare] whether it is shown only where more are asked for
 */

const NARROW = matchMedia("(max-width: 720px)");

/** Milliseconds after the last key at which a text counts. */
const TYPED_MS = 250;

export class Filters {
  /**
   * @param {Condition[]} conditions
   * @param {(query: URLSearchParams) => void} changed
   * @param {AbortSignal} signal
   */
  constructor(conditions, changed, signal) {
    this.conditions = conditions;
    this.timer = 0;
    /** @type {Map<string, any>} */
    this.inputs = new Map();
    const often = conditions.filter((one) => !one.isRare);
    const rare = conditions.filter((one) => one.isRare);
    this.more = element(
      "details.more",
      {},
      element("summary", {}, "More filters"),
      element("div.filters-more", {}, rare.map((one) => this.labelled(one))),
    );
    this.form = element(
      "form.filters",
      { role: "search" },
      often.map((one) => this.labelled(one)),
      rare.length > 0 && this.more,
    );
    this.place = element("details.fold", {}, element("summary", {}, "Filters"), this.form);
    // Where there is little room, what is found comes first.
    this.place.open = !NARROW.matches;
    NARROW.addEventListener("change", () => (this.place.open ||= !NARROW.matches), { signal });
    const tell = () => changed(this.query);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => {
      clearTimeout(this.timer);
      this.timer = setTimeout(tell, event.target.type === "text" ? TYPED_MS : 0);
    });
  }

  /** What the form says. */
  get query() {
    const query = new URLSearchParams();
    for (const { name, kind, options } of this.conditions) {
      const input = this.inputs.get(name);
      const text = kind === "several" ? checked(input) : input.value.trim();
      if (kind === "texts") for (const one of text.split(/,\s+/).filter(Boolean)) query.append(name, one);
      else if (text && !(kind === "choice" && text === options?.[0])) query.set(name, kind === "time" ? new Date(text).toISOString() : text);
    }
    return query;
  }

  /**
   * Have the form say something else.
   * @param {URLSearchParams} query
   */
  put(query) {
    for (const { name, kind, isRare, options } of this.conditions) {
      const input = this.inputs.get(name);
      const text = kind === "texts" ? query.getAll(name).join(", ") : (query.get(name) ?? "");
      if (isRare && text) this.more.open = true;
      if (kind === "several") {
        const names = text.split(",");
        for (const box of input.querySelectorAll("input")) box.checked = names.includes(box.value);
      } else {
        const usual = kind === "choice" ? (options?.[0] ?? "") : "";
        const value = kind === "time" && text ? local(text) : text || usual;
        if (input.value.trim() !== value) input.value = value;
      }
    }
  }

  labelled(condition) {
    const { name, label, kind, options = [], hint = "", least = 0 } = condition;
    if (kind === "several") {
      const boxes = options.map((text) =>
        element("label.chip", {}, element("input", { type: "checkbox", value: text, name }), text),
      );
      const group = element("fieldset.chips", {}, element("legend", {}, label), boxes);
      this.inputs.set(name, group);
      return group;
    }
    const input =
      kind === "choice"
        ? element("select", { name }, options.map((text) => element("option", { value: text }, text || "any")))
        : element("input", {
            name,
            type: { text: "text", texts: "text", number: "number", time: "datetime-local" }[kind],
            placeholder: hint,
            min: kind === "number" ? least : null,
            step: kind === "time" ? "1" : null,
            spellcheck: "false",
            autocomplete: "off",
          });
    this.inputs.set(name, input);
    return element("label.field", {}, element("span", {}, label), input);
  }
}

function checked(group) {
  return [...group.querySelectorAll("input:checked")].map((box) => box.value).join(",");
}

/** Write a time as the input for times has it, which knows no zones. */
function local(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

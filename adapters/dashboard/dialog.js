/** Dialogs: nothing that cannot be taken back is done without one. */

import { element } from "./element.js";

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {"text" | "json" | "check"} [kind]
 * @property {string | boolean} [value]
 * @property {boolean} [required]
 */

/**
 * Ask whether something shall be done, and what it has to be told.
 * @param {object} question
 * @param {string} question.title
 * @param {string} [question.text]
 * @param {string} question.action what the button says that does it
 * @param {string} [question.keep] what the button says that does nothing
 * @param {boolean} [question.isDangerous]
 * @param {Field[]} [question.fields]
 * @returns {Promise<Object<string, any> | null>} what the fields say; null if it shall not be done
 */
export function ask({ title, text = "", action, keep = "Do nothing", isDangerous = false, fields = [] }) {
  return new Promise((resolve) => {
    const trouble = element("p.trouble", { role: "alert" });
    const inputs = fields.map(inputOf);
    const form = element(
      "form",
      {},
      element("h2", { id: "dialog-title" }, title),
      text && element("p", {}, text),
      fields.map((field, index) => labelled(field, inputs[index])),
      trouble,
      element(
        "div.buttons",
        {},
        keep && element("button", { type: "button", onclick: () => dialog.close() }, keep),
        element(isDangerous ? "button.danger" : "button.primary", { type: "submit" }, action),
      ),
    );
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, form);
    /** @type {Object<string, any> | null} */
    let answer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      try {
        answer = Object.fromEntries(fields.map((field, at) => [field.name, read(field, inputs[at])]));
      } catch (error) {
        trouble.textContent = /** @type {Error} */ (error).message;
        return;
      }
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Read a text as JSON; an empty one is nothing.
 * @param {string} text
 * @param {string} name
 */
export function readJson(text, name) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is no JSON: ${/** @type {Error} */ (error).message}`);
  }
}

function inputOf(field) {
  const given = { id: `field-${field.name}`, name: field.name, required: field.required };
  if (field.kind === "check") return element("input", { ...given, type: "checkbox", checked: field.value });
  if (field.kind === "json") {
    return element("textarea", { ...given, rows: 4, spellcheck: "false", value: field.value ?? "" });
  }
  return element("input", { ...given, type: "text", value: field.value ?? "" });
}

function labelled(field, input) {
  if (field.kind === "check") return element("label.check", {}, input, " ", field.label);
  return element("label.field", {}, element("span", {}, field.label), input);
}

function read(field, input) {
  if (field.kind === "check") return input.checked;
  return field.kind === "json" ? readJson(input.value, field.label) : input.value;
}

/** Saved views: filters under a name, kept by this browser. */

import { ask } from "./dialog.js";
import { element, fill } from "./element.js";

const KEPT = "perdure.views";

/**
 * Make the control that saves, opens and forgets views.
 * @param {() => URLSearchParams} current
 * @param {(query: URLSearchParams) => void} open
 */
export function viewsControl(current, open) {
  const list = element("select", { "aria-label": "Saved views" });
  const forget = element("button.small", { type: "button", hidden: true }, "Forget view");
  function show(chosen = "") {
    const names = Object.keys(read()).sort();
    fill(
      list,
      element("option", { value: "" }, names.length ? "Saved views" : "No saved views"),
      names.map((name) => element("option", { value: name, selected: name === chosen }, name)),
    );
    list.disabled = names.length === 0;
    forget.hidden = chosen === "";
  }
  list.addEventListener("change", () => {
    forget.hidden = list.value === "";
    if (list.value) open(new URLSearchParams(read()[list.value]));
  });
  forget.addEventListener("click", () => {
    const views = read();
    delete views[list.value];
    write(views);
    show();
  });
  async function save() {
    const field = { name: "name", label: "Name", required: true };
    const given = await ask({ title: "Save this view", action: "Save", fields: [field] });
    if (!given) return;
    write({ ...read(), [given.name]: current().toString() });
    show(given.name);
  }
  show();
  return element(
    "span.views",
    {},
    list,
    element("button.small", { type: "button", onclick: save }, "Save view"),
    forget,
  );
}

/** @returns {Object<string, string>} */
function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

function write(views) {
  localStorage.setItem(KEPT, JSON.stringify(views));
}

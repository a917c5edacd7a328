/** The tree of an instance: what started it, and what it has started. */

import { get, path } from "./api.js";
import { element, fill } from "./element.js";
import { complain } from "./notice.js";
import { actorLink, badge } from "./status.js";

/** Children that are read at a time, and how far up the ancestors are looked for. */
const PAGE = 200;
const ANCESTORS_MAX = 50;

/**
 * Show the tree.
 * @param {Element} place
 * @param {any} status
 * @param {AbortSignal} signal
 */
export async function showFamily(place, status, signal) {
  const ancestors = await ancestorsOf(status, signal);
  let tree = element("ul.tree", {}, await branchOf(status, signal, true));
  for (const one of ancestors) tree = element("ul.tree", {}, element("li", {}, entry(one), tree));
  fill(place, tree);
}

/** Give the parent, its parent and so on. */
async function ancestorsOf(status, signal) {
  const found = [];
  let id = status.parent_instance_id;
  while (id !== null && found.length < ANCESTORS_MAX) {
    try {
      const parent = await get(path`instances/${id}`, { signal });
      found.push(parent);
      id = parent.parent_instance_id;
    } catch (error) {
      if (signal.aborted) throw error;
      return found; // it was purged
    }
  }
  return found;
}

async function branchOf(status, signal, isOpen = false) {
  const children = element("ul.tree", { hidden: !isOpen });
  const toggle = element("button.toggle", { type: "button" });
  let wasRead = false;
  async function open() {
    if (!wasRead) await readChildren(children, status.instance_id, null, signal);
    wasRead = true;
    if (!children.childElementCount) toggle.disabled = true;
  }
  function label() {
    toggle.textContent = children.hidden ? "▸" : "▾";
    toggle.setAttribute("aria-expanded", String(!children.hidden));
    toggle.setAttribute("aria-label", `Children of ${status.instance_id}`);
  }
  toggle.addEventListener("click", async () => {
    children.hidden = !children.hidden;
    label();
    await open().catch(complain);
  });
  if (isOpen) await open();
  label();
  return element("li", {}, toggle, isOpen ? element("strong", {}, entry(status)) : entry(status), children);
}

async function readChildren(list, id, cursor, signal) {
  const query = { parent_instance_id: id, limit: PAGE, payloads: false, cursor };
  const page = await get("instances", { query, signal });
  for (const child of page.items) list.append(await branchOf(child, signal));
  if (page.cursor === null) return;
  const more = element("button.small", { type: "button" }, "Show more");
  more.addEventListener("click", () => {
    more.parentElement?.remove();
    readChildren(list, id, page.cursor, signal).catch(complain);
  });
  list.append(element("li", {}, more));
}

function entry(status) {
  return element("span", {}, badge(status), " ", actorLink(status.instance_id), element("span.quiet", {}, ` ${status.name}`));
}

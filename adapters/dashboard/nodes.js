/** The nodes: which processes serve the hub, what each has, and what goes from one to another. */

import { get, path, post } from "./api.js";
import { ask } from "./dialog.js";
import { element, fill, refill } from "./element.js";
import { complain, say } from "./notice.js";
import { movePartition } from "./placement.js";
import { mayWrite } from "./session.js";
import { shownTime, span } from "./times.js";

/** Milliseconds between two looks. */
const LOOK_MS = 1_000;
/** How many moves are remembered. */
const MOVES = 50;
/** So many checkpoints of a partition that its tables lack are trouble. */
const BACKLOG = 10_000;

/** @type {import("./main.js").Show} */
export function showNodes(place, _, signal) {
  const nodes = new Nodes(signal);
  fill(place, nodes.parts);
  nodes.look();
}

class Nodes {
  constructor(signal) {
    this.signal = signal;
    /** @type {Map<number, {epoch: number | null, owner: number | null}> | null} who had what at the look before */
    this.before = null;
    this.moves = /** @type {any[]} */ ([]);
    this.said = element("p", { id: "said" }, "…");
    this.nodes = element("tbody", { id: "nodes" });
    this.free = element("div", { id: "free" });
    this.taken = element("tbody", { id: "moves" });
    this.parts = [
      element("h1.hidden", {}, "Nodes"),
      element(
        "section.card",
        {},
        element("h2", {}, "Nodes"),
        this.said,
        table(["Member", "", "Beat", "Partitions", "Behind", "Where", "Version", "Joined", ""], this.nodes),
        this.free,
      ),
      element(
        "section.card",
        {},
        element("h2", {}, "Partitions that went from one to another"),
        table(["Partition", "From", "To", "Epoch", "Seen"], this.taken),
      ),
    ];
    this.showMoves();
  }

  async look() {
    try {
      if (!document.hidden) this.show(await get("nodes", { signal: this.signal }));
    } catch (error) {
      complain(error);
    }
    if (this.signal.aborted) return;
    setTimeout(() => !this.signal.aborted && this.look(), LOOK_MS);
  }

  show(told) {
    this.note(told);
    const living = told.nodes.filter((node) => !node.is_expired);
    const all = told.nodes.reduce((sum, node) => sum + node.partitions.length, told.free.length);
    const one = told.is_cluster ? "" : " The store has one owner, so there are no others.";
    fill(this.said, `${counted(living.length, "process", "processes")} serve${living.length === 1 ? "s" : ""} `, `${counted(all, "partition", "partitions")}.${one}`);
    refill(this.nodes, told.nodes.map((node) => this.row(node, told)));
    refill(
      this.free,
      told.free.length > 0 &&
        element("p", {}, badge("failed", "nobody has"), " ", told.free.map((part) => part.index).join(", ")),
    );
  }

  row(node, { is_cluster }) {
    const where = [node.address ?? node.host, node.address && ` (${node.host})`, `, process ${node.pid}`];
    const cells = [
      element("span", {}, node.member, node.is_this && element("span.quiet", {}, " asked")),
      states(node, is_cluster),
      is_cluster ? element("span", { class: node.is_expired ? "trouble" : null }, span(1_000 * node.beat_age_s)) : "",
      element("div.chips", {}, this.partitions(node, is_cluster)),
      behind(node),
      element("span", {}, where, node.http && [" ", element("a", { href: node.http }, node.http)]),
      element("span", {}, node.software, node.app_hash && element("span.quiet", {}, ` ${node.app_hash}`)),
      shownTime(node.joined),
      is_cluster && !node.is_expired && mayWrite() && this.drainButton(node),
    ];
    return element("tr", { "data-member": node.member }, cells.map((cell) => element("td", {}, cell)));
  }

  partitions(node, is_cluster) {
    const canMove = is_cluster && mayWrite();
    const chips = node.partitions.map((part) => {
      const goes = part.wanted === null ? "" : ` → ${part.wanted}`;
      if (!canMove) return element("span", {}, `${part.index}${goes}`);
      const label = `Move partition ${part.index}`;
      const move = () => this.move(part, node);
      return element("button.small", { type: "button", onclick: move, "aria-label": label }, `${part.index}${goes}`);
    });
    return [element("strong", {}, node.partitions.length), chips];
  }

  drainButton(node) {
    const word = node.is_draining ? "Undrain" : "Drain";
    const label = `${word} member ${node.member}`;
    const drain = () => this.drain(node);
    return element("button.small", { type: "button", onclick: drain, "aria-label": label }, node.is_draining ? word : `${word}…`);
  }

  async move(part, node) {
    await movePartition(part.index, "member", `Member ${node.member} has it. It moves when its turns under way have ended.`);
  }

  async drain(node) {
    const action = node.is_draining ? "undrain" : "drain";
    if (action === "drain") {
      const text = "It lets its partitions go to the others, and takes no more until it is undrained.";
      const isMeant = await ask({ title: `Drain member ${node.member}?`, text, action: "Drain" });
      if (!isMeant) return;
    }
    try {
      await post(path`nodes/${node.member}/${action}`, { body: {} });
      say(action === "drain" ? `Member ${node.member} is draining` : `Member ${node.member} takes its share again`);
    } catch (error) {
      complain(error);
    }
  }

  /** See what another node has now than before. */
  note({ nodes, free }) {
    const now = new Map();
    for (const node of nodes) {
      for (const part of node.partitions) now.set(part.index, { epoch: part.epoch, owner: node.member });
    }
    for (const part of free) now.set(part.index, { epoch: part.epoch, owner: null });
    const at = new Date().toISOString();
    for (const [index, { epoch, owner }] of now) {
      const was = this.before?.get(index);
      if (was && was.owner !== owner) this.moves.unshift({ index, epoch, from: was.owner, to: owner, at });
    }
    this.before = now;
    this.moves.length = Math.min(this.moves.length, MOVES);
    this.showMoves();
  }

  showMoves() {
    const name = (member) => (member === null ? element("span.quiet", {}, "nobody") : member);
    const rows = this.moves.map((one) =>
      element(
        "tr",
        {},
        [one.index, name(one.from), name(one.to), one.epoch, shownTime(one.at)].map((cell) => element("td", {}, cell)),
      ),
    );
    const none = element("tr", {}, element("td.quiet", { colspan: 5 }, "None, since this page is open."));
    refill(this.taken, rows.length ? rows : none);
  }
}

/** How many checkpoints the tables lack of all that a node has, and of which partition most. */
function behind(node) {
  const known = node.partitions.filter((part) => part.unapplied !== null && part.unapplied !== undefined);
  if (known.length === 0) return "";
  const sum = known.reduce((all, part) => all + part.unapplied, 0);
  const most = known.reduce((one, part) => (part.unapplied > one.unapplied ? part : one));
  const title = sum === 0 ? null : `Most: partition ${most.index}, ${most.unapplied.toLocaleString()}`;
  return element("span", { class: most.unapplied > BACKLOG ? "trouble" : null, title }, sum.toLocaleString());
}

function states(node, is_cluster) {
  const found = [];
  if (node.is_expired) found.push(badge("failed", "expired"));
  else if (node.is_draining) found.push(badge("suspended", "draining"));
  else found.push(badge("completed", "serves"));
  if (is_cluster && node.is_other_version) found.push(badge("terminated", "another version"));
  return element("span.chips", {}, found);
}

function badge(kind, text) {
  return element(`span.badge.is-${kind}`, {}, text);
}

function table(headings, body) {
  return element(
    "div.scroll",
    { tabindex: "0", role: "group", "aria-label": "Table" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, headings.map((text) => element(text ? "th" : "td", {}, text)))),
      body,
    ),
  );
}

function counted(count, one, many) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}

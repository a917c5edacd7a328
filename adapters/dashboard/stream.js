/** The stream of changes: it tells the page what becomes of instances, so that nothing polls. */

import { urlOf } from "./api.js";

/** Milliseconds after which a stream that was refused is asked for again. */
const AGAIN_MS = 2_000;
/** Milliseconds that changes are gathered before the page is told of them. */
const GATHER_MS = 100;

/**
 * @typedef {object} Change
 * @property {"changed" | "left" | "purged" | "reset"} kind
 * @property {string} instance_id
 * @property {any} status
 */

/**
 * Follow the changes of instances until the signal.
 *
 * A window that nobody sees follows nothing, for browsers allow few streams at a time; what it
 * missed it is told as a reset when it is seen again.
 * @param {URLSearchParams | Object<string, any>} query which instances
 * @param {object} told
 * @param {(changes: Change[]) => void} told.changes what has become of some
 * @param {() => void} told.reset all has to be asked again, at the beginning too
 * @param {AbortSignal} signal
 */
export function follow(query, told, signal) {
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let gathered = /** @type {Change[]} */ ([]);
  let gathering = 0;
  /** Begin: what there is is asked for at once, and again when the stream says from when on it tells. */
  function begin() {
    open();
    if (source) told.reset();
  }

  function open() {
    close();
    if (document.hidden || signal.aborted) return;
    source = new EventSource(urlOf("changes", query));
    for (const kind of ["changed", "left", "purged", "reset"]) source.addEventListener(kind, hear);
    source.onopen = () => say("live");
    source.onerror = () => {
      say("waiting");
      // Of what only broke off the browser asks again by itself.
      if (source?.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN_MS);
    };
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function hear(event) {
    const change = JSON.parse(event.data);
    if (change.kind === "reset") {
      gathered = [];
      told.reset();
      return;
    }
    gathered.push(change);
    gathering ||= setTimeout(tell, GATHER_MS);
  }

  function tell() {
    gathering = 0;
    const changes = gathered;
    gathered = [];
    if (changes.length && !signal.aborted) told.changes(changes);
  }

  document.addEventListener("visibilitychange", begin, { signal });
  signal.addEventListener("abort", () => {
    close();
    clearTimeout(gathering);
    say("off");
  });
  begin();
}

function say(state) {
  dispatchEvent(new CustomEvent("stream", { detail: state }));
}

/** The hub's API: what everything here is asked of. */

const ROOT = "api/v1/";

/** What the hub says of a request that it does not do. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {{type?: string, title?: string, detail?: string}} told
   */
  constructor(status, told) {
    super(told.detail || told.title || `the server answered ${status}`);
    this.status = status;
    this.type = told.type || "";
  }
}

/**
 * Write a path, each value of it as one segment.
 * @param {TemplateStringsArray} words
 * @param {...(string | number)} values
 */
export function path(words, ...values) {
  return words.reduce(
    (text, word, index) => text + encodeURIComponent(String(values[index - 1])) + word,
  );
}

/**
 * @typedef {object} Asked
 * @property {URLSearchParams | Object<string, any>} [query]
 * @property {any} [body] what is sent as JSON
 * @property {AbortSignal} [signal]
 */

/**
 * Ask for something.
 * @param {string} where a path below the API
 * @param {Asked} [asked]
 * @returns {Promise<any>}
 */
export function get(where, asked = {}) {
  return send("GET", where, asked);
}

/**
 * Have something done.
 * @param {string} where
 * @param {Asked} [asked]
 * @returns {Promise<any>}
 */
export function post(where, asked = {}) {
  return send("POST", where, asked);
}

/**
 * Delete something.
 * @param {string} where
 * @param {Asked} [asked]
 * @returns {Promise<any>}
 */
export function remove(where, asked = {}) {
  return send("DELETE", where, asked);
}

/**
 * Give the URL of a stream or a request.
 * @param {string} where
 * @param {URLSearchParams | Object<string, any>} [query]
 */
export function urlOf(where, query = {}) {
  const text = query instanceof URLSearchParams ? query.toString() : written(query);
  return ROOT + where + (text ? `?${text}` : "");
}

/**
 * @param {string} method
 * @param {string} where
 * @param {Asked} asked
 */
async function send(method, where, { query, body, signal }) {
  const options = /** @type {RequestInit} */ ({ method, signal, headers: {} });
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const response = await fetch(urlOf(where, query), options);
  if (response.ok) return response.json();
  if (response.status === 401) dispatchEvent(new Event("signed-out"));
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

function written(query) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") pairs.append(name, String(value));
  }
  return pairs.toString();
}

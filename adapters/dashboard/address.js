/** The address of what is shown, behind the `#`: it can be kept, shared and gone back to. */

/**
 * @typedef {object} Address
 * @property {string} page such as `instances`
 * @property {string | null} id of what the page is about
 * @property {URLSearchParams} query
 */

/**
 * Read the address of the window.
 * @returns {Address}
 */
export function currentAddress() {
  const [path, query = ""] = split(location.hash.slice(1));
  const [page = "", id] = path.split("/").slice(1);
  return {
    page: page || "overview",
    id: id === undefined ? null : decoded(id),
    query: new URLSearchParams(query),
  };
}

/**
 * Write an address, as a link has it.
 * @param {string} page
 * @param {string | null} [id]
 * @param {URLSearchParams | Object<string, string>} [query]
 */
export function addressOf(page, id = null, query = {}) {
  const text = new URLSearchParams(query).toString();
  const path = id === null ? `#/${page}` : `#/${page}/${encodeURIComponent(id)}`;
  return text ? `${path}?${text}` : path;
}

/**
 * Go to an address.
 * @param {string} address
 * @param {{replace?: boolean}} [how] `replace` leaves no way back to where we are
 */
export function goTo(address, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = address;
}

function split(text) {
  const mark = text.indexOf("?");
  return mark < 0 ? [text] : [text.slice(0, mark), text.slice(mark + 1)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

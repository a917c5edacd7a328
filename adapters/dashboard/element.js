/** Elements of the page. They are made of texts: nothing is ever read as HTML. */

/** @typedef {Node | string | number | null | undefined | false | any[]} Child what is in a list is a child, too */

const SVG = "http://www.w3.org/2000/svg";
/** What is set as a property, since the attribute of that name says only how it began. */
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "open", "hidden"]);

/**
 * Make an element.
 * @param {string} kind its name, with its classes behind dots: `div.row.is-open`
 * @param {Object<string, any>} [given] attributes; `onclick` and such are listeners, and `style` is
 *   an object of CSS properties. What is null or false is left out.
 * @param {...Child} children
 * @returns {any}
 */
export function element(kind, given = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  return furnish(document.createElement(tag), classes, given, children);
}

/**
 * Make an element of a drawing.
 * @param {string} kind
 * @param {Object<string, any>} [given]
 * @param {...Child} children
 * @returns {any}
 */
export function drawn(kind, given = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  return furnish(document.createElementNS(SVG, tag), classes, given, children);
}

/**
 * Put other children into an element.
 * @param {Element} parent
 * @param {...Child} children
 */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * Have an element show other children, and leave those as they are that show the same: they keep
 * the focus, what is selected in them, and a click that is half done.
 *
 * Of two that look the same the listeners must do the same.
 * @param {Element} parent
 * @param {...Child} children
 */
export function refill(parent, ...children) {
  const wanted = document.createDocumentFragment();
  append(wanted, children);
  patch(parent, [...wanted.childNodes]);
}

/**
 * Have a node look like another one.
 * @param {any} old
 * @param {any} wanted
 * @returns {any} the node that is in the page now
 */
export function become(old, wanted) {
  if (old.isEqualNode(wanted)) return old;
  // What has listeners is what these are about: with another text it is another thing.
  if (listening.has(old) || !old.cloneNode(false).isEqualNode(wanted.cloneNode(false)) || old.nodeType !== Node.ELEMENT_NODE) {
    old.replaceWith(wanted);
    return wanted;
  }
  patch(old, [...wanted.childNodes]);
  return old;
}

/** @type {WeakSet<Node>} */
const listening = new WeakSet();

function patch(parent, wanted) {
  const old = [...parent.childNodes];
  wanted.forEach((node, at) => (at < old.length ? become(old[at], node) : parent.append(node)));
  for (const node of old.slice(wanted.length)) node.remove();
}

function furnish(made, classes, given, children) {
  if (classes.length) made.classList.add(...classes);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      made.addEventListener(name.slice(2), value);
      listening.add(made);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) made.style.setProperty(property, text);
    } else if (PROPERTIES.has(name) && name in made) made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  append(made, children);
  return made;
}

function append(parent, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(parent, child);
    else if (child instanceof Node) parent.append(child);
    else if (child !== null && child !== undefined && child !== false) parent.append(String(child));
  }
}

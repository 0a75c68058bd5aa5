// Building and updating the page's elements.
// Decides: how a freshly built tree is patched into the one on the screen, so that focus, selection,
// scroll position and what a reader typed survive each update.
// Leaves to others: what is shown (views). Invariants: text goes in as text nodes only, never as
// markup; no inline style or script is ever made, so the strict Content-Security-Policy holds.

const SVG = "http://www.w3.org/2000/svg";
const handlers = new WeakMap(); // element -> {event type: function}, replaced by each patch
const listening = new WeakMap(); // element -> set of event types that reach `handlers`

/** An HTML element. `on` maps event types to functions; `key` tells siblings apart over updates. */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same in the SVG namespace. */
export function svg(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") listen(element, value);
    else if (name === "key") element.setAttribute("data-key", value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

function listen(element, found) {
  handlers.set(element, found);
  const known = listening.get(element) ?? new Set();
  listening.set(element, known);
  for (const type of Object.keys(found)) {
    if (known.has(type)) continue;
    known.add(type);
    element.addEventListener(type, (event) => handlers.get(element)?.[type]?.(event));
  }
}

/** Make `parent` hold `wanted` (nodes), changing only what differs from what it holds. */
export function patchChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) {
    if (child.dataset?.key) keyed.set(child.dataset.key, child);
  }
  let place = parent.firstChild;
  for (const next of wanted) {
    const key = next.dataset?.key;
    let present = key ? keyed.get(key) : place;
    if (!key && present?.dataset?.key) present = null;
    if (present && alike(present, next)) {
      if (present === place) place = place.nextSibling;
      else parent.insertBefore(present, place);
      patch(present, next);
    } else {
      parent.insertBefore(next, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.dataset?.key === b.dataset?.key;
}

function patch(present, next) {
  if (present.nodeType === Node.TEXT_NODE) {
    if (present.data !== next.data) present.data = next.data;
    return;
  }
  for (const { name } of [...present.attributes]) {
    // `open` belongs to whoever opened the details.
    if (!next.hasAttribute(name) && name !== "open") present.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
  const found = handlers.get(next);
  if (found) listen(present, found);
  else handlers.delete(present);
  patchChildren(present, [...next.childNodes]);
}

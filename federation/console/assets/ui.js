// The pieces that views are made of: tables, tags, bars, messages.
// Decides: their markup and roles. Leaves to others: the words (views), the looks (console.css).

import { h, svg } from "./dom.js";
import { count } from "./format.js";

/** A table. Columns: `{label, cell(row), number?, head?, className?}`; one of them heads its row.
 * On a phone each row becomes a list of its values under the columns' labels. A `hidden` caption is
 * for screen readers: the page's title already says it. */
export function table({ caption, note, hidden = false, columns, rows, key, rowClass, className = "" }) {
  const heading = columns.map((column) =>
    h("th", { scope: "col", class: column.number ? "number" : null }, column.label),
  );
  const body = rows.map((row) =>
    h("tr", { key: key(row), class: rowClass?.(row) ?? null }, columns.map((column) => cell(column, row))),
  );
  const title = h("caption", { class: hidden ? "sr" : null }, caption, note ? h("span", { class: "muted" }, note) : null);
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": caption },
    h("table", { class: `cards ${className}`.trim() }, title, h("thead", null, h("tr", null, heading)), h("tbody", null, body)),
  );
}

function cell(column, row) {
  const value = column.cell(row);
  const classes = [column.number ? "number" : "", column.className ?? ""].join(" ").trim();
  if (column.head) return h("th", { scope: "row", class: classes || null }, value);
  const empty = value === "" || value === null || value === undefined || (Array.isArray(value) && value.length === 0);
  return h("td", { "data-label": column.label, class: `${classes}${empty ? " none" : ""}`.trim() || null }, h("div", null, value));
}

/** A word with the colour of what it means: good, warn, bad, drain or none. */
export const tag = (text, tone = "") => h("span", { class: `tag ${tone}`.trim() }, text);

/** A name as machines know it. */
export const name = (text) => h("span", { class: "name" }, text);

/** The share in force as a bar; a mark stands where another share was asked for. */
export function bar(inForceBp, askedBp = inForceBp, tone = "") {
  const x = (bp) => (112 * Math.max(0, Math.min(10_000, bp))) / 10_000;
  const mark = Math.max(1, Math.min(111, x(askedBp)));
  return svg(
    "svg",
    { class: "bar", viewBox: "0 0 112 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 112, height: 10 }),
    svg("rect", { class: `fill ${tone}`.trim(), width: x(inForceBp), height: 10 }),
    askedBp !== inForceBp && askedBp !== null
      ? svg("line", { class: "mark", x1: mark, x2: mark, y1: 0, y2: 10 })
      : null,
  );
}

/** A message that stands out: `tone` is bad, warn, good or none. */
export const message = (tone, ...content) => h("div", { class: `message ${tone}`.trim() }, content);

/** What the server said when it refused or failed. */
export const problem = (error) => h("div", { class: "message bad", role: "alert" }, h("p", null, error.message));

/** A page's head: title and a line about it. */
export function head(title, ...rest) {
  return h("div", { class: "head" }, h("h1", { tabindex: -1 }, title), rest);
}

/** A labelled surface; without a title it is a plain box. */
export function panel(title, note, ...content) {
  const id = `panel-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return h(
    "section",
    { class: "panel", key: id, "aria-labelledby": id },
    h("header", null, h("h2", { id }, title), note ? h("p", null, note) : null),
    content,
  );
}

/** Figures in a row: pairs of label and value. */
export const figures = (pairs) =>
  h("dl", { class: "figures" }, pairs.map(([label, value]) => h("div", null, h("dt", null, label), h("dd", null, value))));

/** A field with its label and, perhaps, a hint; `control` is the input. */
export function field(id, label, control, hint = null) {
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint ? h("small", { id: `${id}-hint` }, hint) : null,
  );
}

/** A choice; `options` are pairs of value and words. */
export const select = (attributes, options, chosen) =>
  h("select", attributes, options.map(([value, words]) => h("option", { value, selected: value === chosen }, words)));

/** Which page of a list is shown, and the way to the others. */
export function pages({ page, per, matched }, go) {
  const last = Math.max(1, Math.ceil(matched / per));
  if (matched <= per && page === 1) return null;
  const from = Math.min(matched, (page - 1) * per + 1);
  return h(
    "nav",
    { class: "pages", "aria-label": "Pages of the list" },
    h("button", { type: "button", disabled: page <= 1, on: { click: () => go(page - 1) } }, "Previous"),
    h("span", null, `${count(from)}–${count(Math.min(matched, page * per))} of ${count(matched)}`),
    h("button", { type: "button", disabled: page >= last, on: { click: () => go(page + 1) } }, "Next"),
  );
}

/** A reason: its word, the same as in conditions and logs, and its sentence. */
export const reason = ({ code, message: sentence }) => h("span", null, h("strong", null, code), sentence ? `: ${sentence}` : "");

// Numbers, shares, times and durations as people read them. Pure.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const NONE = "–";

/** Not known: merge patches drop what is null, so that absent and null mean the same. */
export const missing = (value) => value === null || value === undefined;

/** A count: `12,345`. */
export const count = (value) => (missing(value) ? NONE : whole.format(value));

/** A rate a second: tenths below ten, whole above. */
export function rate(value) {
  if (missing(value)) return NONE;
  return value > 0 && value < 9.95 ? tenth.format(value) : whole.format(value);
}

/** Milliseconds with a unit. */
export function ms(value) {
  if (missing(value)) return NONE;
  return value < 99.95 ? `${tenth.format(value)} ms` : `${whole.format(value)} ms`;
}

/** Basis points as a percentage. */
export function share(bp) {
  if (missing(bp)) return NONE;
  const percent = bp / 100;
  return `${Number.isInteger(percent) ? percent : percent.toFixed(percent < 1 ? 2 : 1)} %`;
}

/** A duration in seconds, two units at most: `4 s`, `3 min 20 s`, `2 h 5 min`. */
export function seconds(value) {
  if (missing(value)) return NONE;
  const total = Math.max(0, Math.round(value));
  const parts = [
    [Math.floor(total / 86400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "min"],
    [total % 60, "s"],
  ].filter(([number]) => number > 0);
  if (parts.length === 0) return "0 s";
  return parts.slice(0, 2).map(([number, unit]) => `${number} ${unit}`).join(" ");
}

/** A duration in milliseconds. */
export const duration = (value) =>
  missing(value) ? NONE : value > 0 && value < 1000 ? `${value} ms` : seconds(value / 1000);

/** A moment (Unix seconds): the clock alone for today, with the date before it otherwise. */
export function moment(unixS) {
  if (missing(unixS)) return NONE;
  const at = new Date(unixS * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

/** `1 stream`, `2 streams`. */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

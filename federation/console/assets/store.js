// The page's state: who looks, the live document, and how fresh it is.
// Decides: who is told of a change. Leaves to others: where changes come from (live.js), what they
// look like (views). Invariant: the state is replaced, never changed in place.

/** JSON merge patch (RFC 7386) on plain values; gives a new value, shares what did not change. */
export function merge(target, change) {
  if (!isObject(change)) return change;
  const result = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(change)) {
    if (value === null) delete result[name];
    else result[name] = merge(result[name], value);
  }
  return result;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** A store of `initial` with `set(changes)` and `subscribe(listener)`. */
export function createStore(initial) {
  let state = initial;
  const listeners = new Set();
  return {
    get state() {
      return state;
    },
    set(changes) {
      state = { ...state, ...changes };
      for (const listener of listeners) listener(state);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

// Requests to the console's server.
// Decides: what goes with a request (the CSRF token), how a refusal becomes an `ApiError`.
// Leaves to others: what to show. Invariants: an error keeps the server's own sentence; a token to
// sign in with is sent once and kept nowhere; a stale CSRF token is renewed and the request repeated
// once.

let csrf = "";

/** A refused or failed request. `code` is the server's word, `body` its whole answer. */
export class ApiError extends Error {
  constructor(status, code, message, body = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.body = body;
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => write("POST", path, body);
export const remove = (path) => write("DELETE", path);

/** Who we are and what we may do. */
export async function session() {
  return remember(await ask("GET", "/api/session"));
}

/** Sign in; the answer is the session. */
export async function signIn(token) {
  return remember(await ask("POST", "/api/session", { Authorization: `Bearer ${token}` }, {}));
}

/** A path with a query of those values that are there. */
export function query(path, values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") found.set(name, value);
  }
  return found.size ? `${path}?${found}` : path;
}

function remember(found) {
  csrf = found.csrf ?? "";
  return found;
}

async function write(method, path, body) {
  try {
    return await ask(method, path, { "X-CSRF-Token": csrf }, body);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "csrf") throw error;
    await session();
    return ask(method, path, { "X-CSRF-Token": csrf }, body);
  }
}

async function ask(method, path, headers = {}, body = undefined) {
  const options = { method, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    const sentence = "The console's server does not answer. Is `fedctl console` still running?";
    throw new ApiError(0, "unreachable", sentence);
  }
  if (answer.status === 204) return null;
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const { code = "unknown", message } = found.error ?? {};
  const sentence = message ?? `The server answered ${answer.status} to ${method} ${path} without a reason.`;
  throw new ApiError(answer.status, code, sentence, { ...found, ...found.error });
}

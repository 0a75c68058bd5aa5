// Signing in with a bearer token. Invariant: the token is kept nowhere but in its field until sent.

import { ApiError, signIn } from "../api.js";
import { h } from "../dom.js";
import { field, head, message, panel, problem } from "../ui.js";

export const title = "Sign in";

export function create({ store, refresh, signedIn }) {
  let error = null;
  let busy = false;
  const submit = async (event) => {
    event.preventDefault();
    if (busy) return;
    const input = event.target.querySelector("input");
    const token = input.value.trim();
    busy = true;
    error = null;
    refresh();
    try {
      const found = await signIn(token);
      input.value = "";
      signedIn(found);
    } catch (problemFound) {
      if (!(problemFound instanceof ApiError)) throw problemFound;
      error = problemFound;
      input.select();
    }
    busy = false;
    refresh();
  };
  return {
    render() {
      const { session } = store.state;
      return [
        head("Sign in"),
        session.whyNot.read ? message("", h("p", null, session.whyNot.read)) : null,
        session.signIn.bearer ? form(submit, busy, error) : null,
      ];
    },
    close() {},
  };
}

function form(submit, busy, error) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, "aria-invalid": error ? "true" : null });
  return panel(
    "With a token",
    null,
    h(
      "form",
      { class: "body signin", on: { submit } },
      field("token", "Bearer token", input, "As your identity provider issued it. It is sent to this server and not kept by the page."),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary", disabled: busy }, "Sign in")),
    ),
    h("div", { class: "body", key: "outcome" }, error ? problem(error) : null),
  );
}

// The sign-in form, and the line with the name of the user. For all demos that need a name.

import { at, make, makeButton, postJson } from "./helpers.js";
import { explain } from "./problem.js";

const SESSION = new URL("../session", document.baseURI);

/** Fills the empty `section`, and resolves with the name of the user after sign-in. */
export async function signIn(section) {
  const { name } = await (await fetch(SESSION)).json();
  const user = name ?? (await requestName(section));
  showName(section, user);
  return user;
}

/** Reloads the page if another user or none is signed in. A server that is not reachable does not sign out the user. */
export async function checkSession(name) {
  const response = await fetch(SESSION).catch(() => null);
  if (name && response?.ok && (await response.json()).name !== name) location.reload();
}

function requestName(section) {
  const input = Object.assign(make("input"), { name: "name", required: true, maxLength: 32, autocomplete: "nickname", spellcheck: false });
  const label = make("label", "field", make("span", "label", "Your name (visible to others)"), input);
  const form = make("form", "form", label, make("div", "actions", makeButton("Sign in", "", "submit")));
  const problem = Object.assign(make("p", "said wrong"), { role: "alert" });
  section.replaceChildren(form, problem);
  at("connection").dataset.state = "closed";
  at("connection").querySelector(".badge-text").textContent = "Sign in to connect";
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const response = await postJson(SESSION, { name: input.value });
        if (response.ok) resolve((await response.json()).name);
        else problem.textContent = await explain(response);
      } catch {
        problem.textContent = "The server cannot be reached.";
      }
    });
  });
}

function showName(section, name) {
  const button = makeButton("Sign out", "quiet");
  button.addEventListener("click", async () => {
    await fetch(SESSION, { method: "DELETE" });
    location.reload();
  });
  const line = make("p", "", "Signed in as ", make("strong", "", name));
  section.replaceChildren(make("div", "signed-in", line, button));
}

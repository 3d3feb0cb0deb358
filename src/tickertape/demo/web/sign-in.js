// The sign-in form, and the line with the name of the user. For all demos that need a name.

import { at, make, makeButton } from "./helpers.js";
import { explain } from "./problem.js";
import { enter, leave, requireUser, user } from "./session.js";

/** Fills the empty `section`, and resolves with the name of the user after sign-in. */
export async function signIn(section) {
  requireUser();
  if (!user) await requestName(section);
  showName(section);
  return user;
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
        const response = await enter(input.value);
        if (response.ok) resolve();
        else problem.textContent = await explain(response);
      } catch {
        problem.textContent = "The server cannot be reached.";
      }
    });
  });
}

function showName(section) {
  const button = makeButton("Sign out", "quiet");
  button.addEventListener("click", leave);
  const line = make("p", "", "Signed in as ", make("strong", "", user));
  section.replaceChildren(make("div", "signed-in", line, button));
}

// The sign-in form, and the line with the name of the user. For all demos that need a name.

import { explain } from "./problem.js";

const SESSION = new URL("../session", document.baseURI);

/** Fills the empty `section`, and resolves with the name of the user after sign-in. */
export async function signIn(section) {
  const { name } = await (await fetch(SESSION)).json();
  const user = name ?? (await requestName(section));
  showName(section, user);
  return user;
}

function requestName(section) {
  const input = element("input", { name: "name", required: true, maxLength: 32, autocomplete: "nickname", spellcheck: false });
  const label = element("label", { className: "field" }, element("span", { className: "label" }, "Your name (visible to others)"), input);
  const button = element("button", { type: "submit" }, "Sign in");
  const problem = element("p", { className: "said wrong", role: "alert" });
  const form = element("form", { className: "form" }, label, element("div", { className: "actions" }, button));
  section.replaceChildren(form, problem);
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const body = JSON.stringify({ name: input.value });
        const response = await fetch(SESSION, { method: "POST", headers: { "Content-Type": "application/json" }, body });
        if (response.ok) resolve((await response.json()).name);
        else problem.textContent = await explain(response);
      } catch {
        problem.textContent = "The server cannot be reached.";
      }
    });
  });
}

function showName(section, name) {
  const button = element("button", { type: "button", className: "quiet" }, "Sign out");
  button.addEventListener("click", async () => {
    await fetch(SESSION, { method: "DELETE" });
    location.reload();
  });
  const line = element("p", {}, "Signed in as ", element("strong", {}, name));
  section.replaceChildren(element("div", { className: "signed-in" }, line, button));
}

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

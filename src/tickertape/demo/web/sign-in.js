// Who one is: a form that asks for a name, and a line that tells it. Shared by the demos that need a name.

import { explain } from "./problem.js";

const SESSION = new URL("../session", document.baseURI);

/** Fills the empty `section`; resolves with the name as soon as there is one. */
export async function signIn(section) {
  const { name } = await (await fetch(SESSION)).json();
  const known = name ?? (await askFor(section));
  tell(section, known);
  return known;
}

function askFor(section) {
  const input = element("input", { name: "name", required: true, maxLength: 32, autocomplete: "nickname", spellcheck: false });
  const label = element("label", { className: "field" }, element("span", { className: "label" }, "Your name, as others see it"), input);
  const button = element("button", { type: "submit" }, "Enter");
  const said = element("p", { className: "said wrong", role: "alert" });
  const form = element("form", { className: "form" }, label, element("div", { className: "actions" }, button));
  section.replaceChildren(form, said);
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const body = JSON.stringify({ name: input.value });
        const response = await fetch(SESSION, { method: "POST", headers: { "Content-Type": "application/json" }, body });
        if (response.ok) resolve((await response.json()).name);
        else said.textContent = await explain(response);
      } catch {
        said.textContent = "The server cannot be reached.";
      }
    });
  });
}

function tell(section, name) {
  const button = element("button", { type: "button", className: "quiet" }, "Sign out");
  button.addEventListener("click", async () => {
    await fetch(SESSION, { method: "DELETE" });
    location.reload();
  });
  const line = element("p", {}, "Signed in as ", element("strong", {}, name));
  section.replaceChildren(element("div", { className: "signed-in" }, line, button));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

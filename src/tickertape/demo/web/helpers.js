// Short functions for all pages of the demos.

export const at = (id) => document.getElementById(id);

/** Creates an element. Text in `children` is never markup. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Creates a button. */
export function makeButton(text, className = "", type = "button") {
  return Object.assign(make("button", className, text), { type });
}

export function postJson(url, body, options = {}) {
  return fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });
}

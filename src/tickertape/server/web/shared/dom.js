// Short functions that build elements. Shared by every page.

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

// New notifications, shown for a few seconds at the edge of the page.

import { make, makeButton } from "./helpers.js";

const MAX_TOASTS = 3; // more would cover the page
const DURATION = 7000; // milliseconds

export class Toasts {
  #list;

  /** Shows toasts in `list`, a live region that screen readers announce. */
  constructor(list) {
    this.#list = list;
  }

  show({ title, body }) {
    const close = makeButton("×", "toast-close");
    close.setAttribute("aria-label", `Dismiss: ${title}`);
    const toast = make("div", "toast", make("p", "toast-title", title), make("p", "toast-body", body), close);
    this.#list.append(toast);
    while (this.#list.childElementCount > MAX_TOASTS) this.#list.firstElementChild.remove();

    // A toast stays while it has the pointer or the focus.
    let timer = 0;
    const remove = () => toast.remove();
    const stop = () => clearTimeout(timer);
    const start = () => { stop(); timer = setTimeout(remove, DURATION); };
    close.addEventListener("click", remove);
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, stop);
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, start);
    start();
  }
}

// New notifications, for a moment at the edge of the page; they stay in the inbox.

const SHOWN = 3; // at once: more would hide what somebody is about to do
const MOMENT = 7000; // milliseconds to read one

export class Toasts {
  #list;

  /** Shows them in `list`, which announces what is added. */
  constructor(list) {
    this.#list = list;
  }

  show({ title, body }) {
    const toast = element("div", "toast");
    const close = element("button", "toast-close", "×");
    close.type = "button";
    close.setAttribute("aria-label", `Dismiss: ${title}`);
    toast.append(element("p", "toast-title", title), element("p", "toast-body", body), close);
    this.#list.append(toast);
    while (this.#list.childElementCount > SHOWN) this.#list.firstElementChild.remove();

    // It does not vanish under a pointer or a cursor that is on its way.
    let timer = 0;
    const go = () => toast.remove();
    const stay = () => clearTimeout(timer);
    const leave = () => { stay(); timer = setTimeout(go, MOMENT); };
    close.addEventListener("click", go);
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, stay);
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, leave);
    leave();
  }
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text ?? "";
  return made;
}

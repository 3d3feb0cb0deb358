// Signs of new notifications: toasts, notifications of the browser, and the icon of the tab.

import { make, makeButton } from "./helpers.js";

const MAX_TOASTS = 3; // more would cover the page
const TOAST_TIME = 7000; // milliseconds
const CHOICE = "desktop-alerts"; // key in localStorage
const ICON_SIZE = 64;

/** New notifications, shown for a few seconds at the edge of the page. */
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
    const start = () => { stop(); timer = setTimeout(remove, TOAST_TIME); };
    close.addEventListener("click", remove);
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, stop);
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, start);
    start();
  }
}

/** Notifications of the browser, while the page does not have the focus. Asks for permission only after a click. */
export class DesktopAlerts {
  #button;
  #problem;

  /** `button` switches the alerts on and off. `problem` shows the reason if the browser refuses. */
  constructor(button, problem) {
    this.#button = button;
    this.#problem = problem;
    button.hidden = !("Notification" in window);
    button.addEventListener("click", () => this.#toggle());
    this.#draw();
  }

  get #on() {
    return !this.#button.hidden && Notification.permission === "granted" && localStorage.getItem(CHOICE) === "on";
  }

  async #toggle() {
    if (this.#on) {
      localStorage.setItem(CHOICE, "off");
    } else if ((await Notification.requestPermission()) === "granted") {
      localStorage.setItem(CHOICE, "on");
    } else {
      this.#problem.textContent = "The browser blocks notifications of this page. You can allow them in the site settings of the browser.";
    }
    this.#draw();
  }

  #draw() {
    this.#button.setAttribute("aria-pressed", String(this.#on));
  }

  show({ id, title, body }) {
    if (!this.#on || document.hasFocus()) return;
    try {
      const alert = new Notification(title, { body, tag: `notification-${id}` }); // one alert for all tabs
      alert.onclick = () => {
        window.focus();
        alert.close();
      };
    } catch {
      this.#button.hidden = true; // browsers on phones may allow this only in service workers
    }
  }
}

/** Shows `count` on the icon, or the original icon for 0. */
export class Favicon {
  #link = document.querySelector('link[rel="icon"]');
  #plain = this.#link.href;

  show(count) {
    this.#link.href = count ? draw(count > 99 ? "99" : String(count)) : this.#plain;
  }
}

function draw(text) {
  const canvas = Object.assign(document.createElement("canvas"), { width: ICON_SIZE, height: ICON_SIZE });
  const context = canvas.getContext("2d");
  context.scale(ICON_SIZE / 32, ICON_SIZE / 32);
  context.fillStyle = "#0b6b53";
  fillPath(context, (path) => path.roundRect(0, 0, 32, 32, 8));
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.lineCap = context.lineJoin = "round";
  context.stroke(new Path2D("M4 20h5l3-9 5 12 4-8h7"));
  context.fillStyle = "#c62828";
  fillPath(context, (path) => path.arc(21, 11, 11, 0, 2 * Math.PI));
  context.fillStyle = "#fff";
  context.font = `700 ${text.length > 1 ? 14 : 17}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, 21, 12);
  return canvas.toDataURL("image/png");
}

function fillPath(context, make) {
  const path = new Path2D();
  make(path);
  context.fill(path);
}

// Notifications of the browser itself, for when the page is not looked at. Nobody is asked before a click.

const CHOICE = "desktop-alerts"; // in localStorage: what was chosen here last

export class DesktopAlerts {
  #button;
  #trouble;

  /** Turned on and off by `button`; why it cannot be done stands in `trouble`. */
  constructor(button, trouble) {
    this.#button = button;
    this.#trouble = trouble;
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
      this.#trouble.textContent = "The browser does not allow alerts of this page: its settings for the site can change that.";
    }
    this.#draw();
  }

  #draw() {
    this.#button.setAttribute("aria-pressed", String(this.#on));
  }

  show({ id, title, body }) {
    if (!this.#on || document.hasFocus()) return;
    try {
      const alert = new Notification(title, { body, tag: `notification-${id}` }); // once, however many tabs there are
      alert.onclick = () => {
        window.focus();
        alert.close();
      };
    } catch {
      this.#button.hidden = true; // some browsers on phones let service workers alone do this
    }
  }
}

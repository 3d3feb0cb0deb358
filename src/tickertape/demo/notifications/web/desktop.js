// Notifications of the browser, while the page does not have the focus. Asks for permission only after a click.

const CHOICE = "desktop-alerts"; // key in localStorage

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

// The inbox on the page: a row for each notification, kept while it is shown, so that nothing loses the focus.

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

export class NotificationList {
  #list;
  #read;
  #heading;
  #rows = new Map();

  /** Fills `list`; `read(id)` is called to mark one; `heading` takes the focus when there is no button left for it. */
  constructor(list, read, heading) {
    this.#list = list;
    this.#read = read;
    this.#heading = heading;
    setInterval(() => this.#rows.forEach(({ time }) => showAge(time)), 15_000);
  }

  /** Shows `notifications`, newest first. */
  show(notifications) {
    const wanted = new Set(notifications.map(({ id }) => id));
    for (const [id, { row }] of this.#rows) {
      if (!wanted.has(id)) {
        row.remove();
        this.#rows.delete(id);
      }
    }
    let next = this.#list.firstElementChild;
    for (const notification of notifications) {
      const { row } = this.#rows.get(notification.id) ?? this.#make(notification);
      if (row === next) next = next.nextElementSibling;
      else this.#list.insertBefore(row, next);
      if (notification.read_at) this.#markRead(notification.id);
    }
  }

  /** Puts the focus on the row at `index`. */
  focus(index) {
    const row = this.#list.children[index];
    if (row) row.tabIndex = -1;
    row?.focus();
  }

  #make(notification) {
    const { id, title, body, link } = notification;
    const time = element("time", "note-time");
    time.dateTime = notification.created_at;
    time.title = new Date(notification.created_at).toLocaleString();
    showAge(time);
    const button = element("button", "quiet note-read", "Mark read");
    button.type = "button";
    button.setAttribute("aria-label", `Mark read: ${title}`);
    button.addEventListener("click", () => this.#read(id));
    const row = element("li", "note unread");
    row.append(element("span", "note-mark", "Unread"), element("p", "note-title", title), time);
    if (body) row.append(element("p", "note-body", body));
    if (link) row.append(this.#makeLink(notification));
    row.append(button);
    const made = { row, time, button };
    this.#rows.set(id, made);
    return made;
  }

  #makeLink({ id, link, read_at: at }) {
    const url = safeUrl(link);
    if (!url) return element("p", "note-link", link);
    const inside = url.origin === location.origin;
    const anchor = element("a", "note-link", inside ? url.pathname + url.search : url.host + url.pathname.replace(/\/$/, ""));
    anchor.href = url.href;
    if (!inside) Object.assign(anchor, { target: "_blank", rel: "noopener noreferrer" });
    if (!at) anchor.addEventListener("click", () => this.#read(id), { once: true });
    return anchor;
  }

  #markRead(id) {
    const { row, button } = this.#rows.get(id);
    if (!row.classList.contains("unread")) return;
    if (button === document.activeElement) this.#passFocus(row);
    row.classList.remove("unread");
    row.querySelector(".note-mark").textContent = "";
    button.remove();
  }

  #passFocus(row) {
    const buttons = [...this.#list.querySelectorAll(".note-read")];
    const here = buttons.indexOf(row.querySelector(".note-read"));
    (buttons[here + 1] ?? buttons[here - 1] ?? this.#heading).focus();
  }
}

/** The address that `text` is, if it leads to a page: of the web, or of this site; anything else could be a script. */
function safeUrl(text) {
  try {
    const url = new URL(text, document.baseURI);
    const outside = /^https?:\/\//i.test(text);
    // "//host" and "/\host" begin like paths and lead elsewhere.
    return outside || (text.startsWith("/") && url.origin === location.origin) ? url : null;
  } catch {
    return null;
  }
}

function showAge(time) {
  const seconds = (Date.now() - new Date(time.dateTime)) / 1000;
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ["", 1];
  const text = unit ? relative.format(-Math.floor(seconds / size), unit) : "just now";
  if (time.textContent !== text) time.textContent = text;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text; // text it stays, whatever it looks like
  return made;
}

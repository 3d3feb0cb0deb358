// The list of notifications. Rows are reused, so that a button keeps the focus.

import { dateTimeOf, make, makeButton } from "./helpers.js";

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

export class NotificationList {
  #list;
  #onRead;
  #heading;
  #rows = new Map();

  /** Fills `list`. `markRead(id)` marks a notification. `heading` gets the focus if no button is left. */
  constructor(list, markRead, heading) {
    this.#list = list;
    this.#onRead = markRead;
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
      const { row } = this.#rows.get(notification.id) ?? this.#createRow(notification);
      if (row === next) next = next.nextElementSibling;
      else this.#list.insertBefore(row, next);
      if (notification.read_at) this.#markRead(notification.id);
    }
  }

  /** Moves the focus to the row at `index`. */
  focus(index) {
    const row = this.#list.children[index];
    if (row) row.tabIndex = -1;
    row?.focus();
  }

  #createRow(notification) {
    const { id, title, body, link } = notification;
    const time = make("time", "note-time");
    time.dateTime = notification.created_at;
    time.title = dateTimeOf(new Date(notification.created_at));
    showAge(time);
    const button = makeButton("Mark read", "quiet note-read");
    button.setAttribute("aria-label", `Mark read: ${title}`);
    button.addEventListener("click", () => this.#onRead(id));
    const row = make("li", "note unread");
    row.append(make("span", "note-mark", "Unread"), make("p", "note-title", title), time);
    if (body) row.append(make("p", "note-body", body));
    if (link) row.append(this.#createLink(notification));
    row.append(button);
    const entry = { row, time, button };
    this.#rows.set(id, entry);
    return entry;
  }

  #createLink({ id, link, read_at: at }) {
    const url = safeUrl(link);
    if (!url) return make("p", "note-link", link);
    const inside = url.origin === location.origin;
    const anchor = make("a", "note-link", inside ? url.pathname + url.search : url.host + url.pathname.replace(/\/$/, ""));
    anchor.href = url.href;
    if (!inside) Object.assign(anchor, { target: "_blank", rel: "noopener noreferrer" });
    if (!at) anchor.addEventListener("click", () => this.#onRead(id), { once: true });
    return anchor;
  }

  #markRead(id) {
    const { row, button } = this.#rows.get(id);
    if (!row.classList.contains("unread")) return;
    if (button === document.activeElement) this.#moveFocus(row);
    row.classList.remove("unread");
    row.querySelector(".note-mark").textContent = "";
    button.remove();
  }

  #moveFocus(row) {
    const buttons = [...this.#list.querySelectorAll(".note-read")];
    const here = buttons.indexOf(row.querySelector(".note-read"));
    (buttons[here + 1] ?? buttons[here - 1] ?? this.#heading).focus();
  }
}

/** Returns the URL in `text` if it is a web page or a path of this site, else null: it may be a script. */
function safeUrl(text) {
  try {
    const url = new URL(text, document.baseURI);
    const outside = /^https?:\/\//i.test(text);
    // "//host" and "/\host" look like paths but are URLs of other hosts.
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

// The loaded notifications of the user, newest first, with the number of all unread ones; and the list that shows them.

import { dateTimeOf, make, makeButton } from "./helpers.js";

const MAX_LOADED = 200; // notifications on the page; a button loads older ones
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

/** Loads pages with `fetchPage(query)`. Dispatches "change" after each change. */
export class Inbox extends EventTarget {
  #fetchPage;
  #unreadOlder = 0; // number of unread notifications that are not loaded

  notifications = new Map(); // by id, newest first
  more = false;

  constructor(fetchPage) {
    super();
    this.#fetchPage = fetchPage;
  }

  get unread() {
    return [...this.notifications.values()].filter(({ read_at: at }) => !at).length + this.#unreadOlder;
  }

  get newest() {
    return Math.max(0, ...this.notifications.keys());
  }

  get #oldest() {
    return Math.min(...this.notifications.keys());
  }

  /** Replaces all notifications with the newest page, and returns the answer. */
  async load() {
    const page = await this.#fetchPage({});
    this.notifications.clear();
    this.#append(page);
    return page;
  }

  async loadOlder() {
    this.#append(await this.#fetchPage({ before: this.#oldest }));
  }

  #append({ notifications, more, unread_older: unreadOlder }) {
    for (const notification of notifications) this.notifications.set(notification.id, notification);
    this.more = more;
    this.#unreadOlder = unreadOlder;
    this.#changed();
  }

  /** Adds a received notification. Returns false if it is known. */
  add(notification) {
    if (this.notifications.has(notification.id)) return false;
    // Sort, because two concurrent rows may arrive in either order.
    const all = [...this.notifications.values(), notification].sort((one, other) => other.id - one.id);
    for (const dropped of all.splice(MAX_LOADED)) {
      this.more = true;
      this.#unreadOlder += dropped.read_at ? 0 : 1;
    }
    this.notifications = new Map(all.map((each) => [each.id, each]));
    this.#changed();
    return true;
  }

  /** Marks notifications as read, for a "read" event or after our own request: `ids`, or all ids up to `up_to`. */
  async mark({ ids = [], up_to: upTo = 0 }) {
    const now = new Date().toISOString();
    for (const notification of this.notifications.values()) {
      if (notification.id <= upTo || ids.includes(notification.id)) notification.read_at ??= now;
    }
    if (this.more && (upTo || ids.some((id) => !this.notifications.has(id)))) await this.#recount();
    this.#changed();
  }

  async #recount() {
    const { notifications, unread_older: older } = await this.#fetchPage({ before: this.#oldest, limit: 1 });
    this.#unreadOlder = older + notifications.filter(({ read_at: at }) => !at).length;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The list of notifications. Rows are reused, so that a button keeps the focus. */
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

// What a user has been told, newest first, as far as it is loaded, and how much of all of it is unread.

const KEPT = 200; // loaded notifications: as many as anybody scrolls through; older ones are a button away

/** Asks `ask(query)` for pages; dispatches "change" when there is something to be drawn anew. */
export class Inbox extends EventTarget {
  #ask;
  #unreadOlder = 0; // among those that are not loaded

  notifications = new Map(); // by id, newest first
  more = false;

  constructor(ask) {
    super();
    this.#ask = ask;
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

  /** Loads the newest page in place of all there was; gives the answer. */
  async load() {
    const page = await this.#ask({});
    this.notifications.clear();
    this.#append(page);
    return page;
  }

  async loadOlder() {
    this.#append(await this.#ask({ before: this.#oldest }));
  }

  #append({ notifications, more, unread_older: unreadOlder }) {
    for (const notification of notifications) this.notifications.set(notification.id, notification);
    this.more = more;
    this.#unreadOlder = unreadOlder;
    this.#changed();
  }

  /** Adds one that has come; says whether it was not there before. */
  add(notification) {
    if (this.notifications.has(notification.id)) return false;
    // Not always in front: of two that are written at once, the one with the greater id may come first.
    const all = [...this.notifications.values(), notification].sort((one, other) => other.id - one.id);
    for (const dropped of all.splice(KEPT)) {
      this.more = true;
      this.#unreadOlder += dropped.read_at ? 0 : 1;
    }
    this.notifications = new Map(all.map((each) => [each.id, each]));
    this.#changed();
    return true;
  }

  /** Marks what a "read" event or the answer to our own request names: `ids`, or all `up_to` one. */
  async mark({ ids = [], up_to: upTo = 0 }) {
    const now = new Date().toISOString();
    for (const notification of this.notifications.values()) {
      if (notification.id <= upTo || ids.includes(notification.id)) notification.read_at ??= now;
    }
    if (this.more && (upTo || ids.some((id) => !this.notifications.has(id)))) await this.#recount();
    this.#changed();
  }

  async #recount() {
    const { notifications, unread_older: older } = await this.#ask({ before: this.#oldest, limit: 1 });
    this.#unreadOlder = older + notifications.filter(({ read_at: at }) => !at).length;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

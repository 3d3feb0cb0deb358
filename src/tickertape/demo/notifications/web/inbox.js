// The loaded notifications of the user, newest first, and the number of all unread ones.

const MAX_LOADED = 200; // notifications on the page; a button loads older ones

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

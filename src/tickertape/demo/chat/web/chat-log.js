// The conversation: messages by author and by day, one's own on their way below, and the place where one reads.

const KEPT = 500; // messages in the page: an evening's, and few enough for a phone
const NEAR = 60; // pixels from the end within which one follows what comes
const TOGETHER = 5 * 60_000; // milliseconds between messages of one author that stand together
const HUES = 8; // of avatars, in the style sheet

const STATES = {
  sending: "Sending",
  waiting: "Not sent yet",
  failed: "Not sent",
  sent: "Sent",
  delivered: "Delivered",
};

export class Log {
  #parts;
  #me;
  #day = ""; // of the newest message
  #last = null; // that message, while nothing stands below it
  #follows = true; // one reads at the end
  #top = 0; // how far it is scrolled
  #unseen = 0;
  #pending = new Map(); // elements by key

  /** Fills `messages` and `pending` in `scroller`; `onResend` and `onDiscard` are given an entry of the outbox. */
  constructor(parts, { me, onResend, onDiscard }) {
    this.#parts = parts;
    this.#me = me;
    this.onResend = onResend;
    this.onDiscard = onDiscard;
    parts.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    parts.newer.addEventListener("click", () => this.toEnd());
    // A keyboard on a screen, or a longer composer, takes place at the end: that is where one reads.
    const observer = new ResizeObserver(() => this.#follow());
    for (const part of [parts.scroller, parts.messages, parts.pending]) observer.observe(part);
  }

  clear() {
    this.#day = "";
    this.#last = null;
    this.#pending.clear();
    this.#parts.messages.replaceChildren();
    this.#parts.pending.replaceChildren();
    this.#parts.empty.hidden = false;
    this.toEnd();
  }

  /** Adds a message that has come: `{name, text, at}`, the time in seconds. */
  add({ name, text, at }) {
    const moment = new Date(at * 1000);
    if (this.#day !== moment.toDateString()) {
      this.#day = moment.toDateString();
      this.note(dayOf(moment), "day");
    }
    const isFirst = this.#last?.name !== name || moment - this.#last.moment > TOGETHER;
    this.#last = { name, moment };
    const isOwn = name === this.#me;
    const item = bubble(name, text, { isOwn, isFirst, moment });
    if (isOwn) item.append(state("delivered"));
    this.#append(item);
    if (!this.#follows && !isOwn) this.#unseen += 1;
    this.#showNewer();
  }

  /** Adds a line between messages. */
  note(text, className = "note") {
    this.#append(line(className, text));
    this.#last = null;
  }

  /** Shows an entry of the outbox in the state that it has now. */
  showPending(entry) {
    const item = this.#pending.get(entry.key);
    if (entry.state === "over") {
      item?.remove();
      this.#pending.delete(entry.key);
    } else if (item) {
      item.lastElementChild.replaceWith(this.#stateOf(entry));
    } else {
      const made = bubble(this.#me, entry.text, { isOwn: true, isFirst: false });
      made.append(this.#stateOf(entry));
      this.#pending.set(entry.key, made);
      this.#parts.pending.append(made);
      this.#parts.empty.hidden = true;
      this.toEnd();
    }
  }

  /** Goes to the newest message, and stays there. */
  toEnd() {
    this.#follows = true;
    this.#unseen = 0;
    this.#follow();
    this.#showNewer();
  }

  #stateOf(entry) {
    const shown = state(entry.state, entry.why);
    if (entry.state === "failed" || entry.state === "waiting") {
      shown.append(button("Resend", () => this.onResend(entry)), button("Discard", () => this.onDiscard(entry)));
    }
    return shown;
  }

  #append(item) {
    this.#parts.messages.append(item);
    this.#parts.empty.hidden = true;
    // Not while one reads further up: what one reads would move.
    while (this.#follows && this.#parts.messages.childElementCount > KEPT) this.#parts.messages.firstElementChild.remove();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#parts.scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    // Only who goes up leaves the end: what comes moves it away too.
    if (isAtEnd || scrollTop < this.#top) this.#follows = isAtEnd;
    this.#top = scrollTop;
    if (this.#follows) this.#unseen = 0;
    this.#showNewer();
  }

  #follow() {
    if (this.#follows) this.#parts.scroller.scrollTop = this.#parts.scroller.scrollHeight;
  }

  #showNewer() {
    this.#parts.newer.hidden = this.#unseen === 0;
    this.#parts.newer.textContent = this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
  }
}

/** A round picture of a name: its first letter, in a colour of its own. */
export function avatar(name) {
  const sum = Array.from(name).reduce((sum, letter) => sum + letter.codePointAt(0), 0);
  const hue = Math.floor(((sum * 0.618034) % 1) * HUES); // the golden ratio: near numbers come to lie far apart
  const made = element("span", `avatar hue-${hue}`, Array.from(name)[0].toUpperCase());
  made.setAttribute("aria-hidden", "true");
  return made;
}

function bubble(name, text, { isOwn, isFirst, moment = null }) {
  const item = element("li", `message${isOwn ? " own" : ""}${isFirst ? " first" : ""}`);
  // Also where it is not to be seen, the name is there to be heard.
  const head = element("p", isFirst ? "message-head" : "unseen");
  head.append(element("span", "message-name", isOwn ? "You" : name), " ");
  if (moment) {
    const time = element("time", "muted", moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = moment.toISOString();
    head.append(time);
  }
  const body = element("p", "message-text", text); // text it stays, whatever it looks like
  body.dir = "auto";
  if (moment) body.title = moment.toLocaleString();
  if (isFirst && !isOwn) item.append(avatar(name));
  item.append(head, body);
  return item;
}

function state(name, why = "") {
  const shown = element("p", `message-state ${name}`);
  const text = element("span", "", why ? `${STATES[name]}: ${why}` : STATES[name]);
  if (name === "failed") text.setAttribute("role", "alert");
  shown.append(text);
  return shown;
}

function line(className, text) {
  const item = element("li", className);
  item.append(element("span", "", text));
  return item;
}

function button(text, onClick) {
  const made = element("button", "quiet small", text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function dayOf(moment) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(moment).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return moment.toLocaleDateString("en", { weekday: "long", day: "numeric", month: "long", year: days > 300 ? "numeric" : undefined });
}

// The conversation: messages grouped by author and day, the user's unsent messages below, and the scroll position.

import { dateTimeOf, make, makeButton, timeOf, withLinks } from "./helpers.js";

const MAX_MESSAGES = 500; // on the page: few enough for a phone
const NEAR = 60; // pixels: if the user is this close to the end, the page follows new messages
const GROUP_INTERVAL = 5 * 60_000; // milliseconds between two messages of one author in a group
const HUES = 8; // avatar colours in the style sheet

const STATES = {
  sending: "Sending",
  waiting: "Not sent yet",
  failed: "Not sent",
  sent: "Sent",
  delivered: "Delivered",
};

export class Conversation {
  #parts;
  #me;
  #day = ""; // day of the newest message
  #last = null; // the newest message, or null if a note is below it
  #follows = true; // the user is at the end
  #top = 0; // scroll position
  #unseen = 0;
  #pending = new Map(); // elements by key

  /** Fills `messages` and `pending` in `scroller`. `onResend` and `onDiscard` receive an entry of the outbox. */
  constructor(parts, { me, onResend, onDiscard }) {
    this.#parts = parts;
    this.#me = me;
    this.onResend = onResend;
    this.onDiscard = onDiscard;
    parts.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    parts.newer.addEventListener("click", () => this.toEnd());
    // An on-screen keyboard or a longer composer shrinks the conversation: stay at the end.
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

  /** Adds a received message: `{name, text, at}`, with the time in seconds. */
  add({ name, text, at }) {
    const moment = new Date(at * 1000);
    if (this.#day !== moment.toDateString()) {
      this.#day = moment.toDateString();
      this.note(dayOf(moment), "day");
    }
    const isFirst = this.#last?.name !== name || moment - this.#last.moment > GROUP_INTERVAL;
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

  /** Shows an entry of the outbox in its current state. */
  showPending(entry) {
    const shown = this.#pending.get(entry.key);
    if (entry.state === "done") {
      shown?.remove();
      this.#pending.delete(entry.key);
    } else if (shown) {
      shown.lastElementChild.replaceWith(this.#stateOf(entry));
    } else {
      const item = bubble(this.#me, entry.text, { isOwn: true, isFirst: false });
      item.append(this.#stateOf(entry));
      this.#pending.set(entry.key, item);
      this.#parts.pending.append(item);
      this.#parts.empty.hidden = true;
      this.toEnd();
    }
  }

  /** Scrolls to the newest message and follows new ones. */
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
    // Not while the user reads further up, because the text would move.
    while (this.#follows && this.#parts.messages.childElementCount > MAX_MESSAGES) this.#parts.messages.firstElementChild.remove();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#parts.scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    // Only scrolling up leaves the end. New messages also increase the distance to it.
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

/** Returns a round picture for a name: its first letter, in a colour that depends on the name. */
export function avatar(name) {
  const sum = Array.from(name).reduce((sum, letter) => sum + letter.codePointAt(0), 0);
  const hue = Math.floor(((sum * 0.618034) % 1) * HUES); // golden ratio: similar sums get different colours
  const picture = make("span", `avatar hue-${hue}`, Array.from(name)[0].toUpperCase());
  picture.setAttribute("aria-hidden", "true");
  return picture;
}

function bubble(name, text, { isOwn, isFirst, moment = null }) {
  const item = make("li", `message${isOwn ? " own" : ""}${isFirst ? " first" : ""}`);
  // Screen readers read the name of every message, even if it is not visible.
  const head = make("p", isFirst ? "message-head" : "unseen");
  head.append(make("span", "message-name", isOwn ? "You" : name), " ");
  if (moment) {
    const time = make("time", "muted", timeOf(moment, false));
    time.dateTime = moment.toISOString();
    head.append(time);
  }
  const body = make("p", "message-text", ...withLinks(text)); // never markup
  body.dir = "auto";
  if (moment) body.title = dateTimeOf(moment);
  if (isFirst && !isOwn) item.append(avatar(name));
  item.append(head, body);
  return item;
}

function state(name, why = "") {
  const shown = make("p", `message-state ${name}`);
  const text = make("span", "", why ? `${STATES[name]}: ${why}` : STATES[name]);
  if (name === "failed") text.setAttribute("role", "alert");
  shown.append(text);
  return shown;
}

function line(className, text) {
  return make("li", className, make("span", "", text));
}

function button(text, onClick) {
  const node = makeButton(text, "quiet small");
  node.addEventListener("click", onClick);
  return node;
}

function dayOf(moment) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(moment).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return moment.toLocaleDateString("en", { weekday: "long", day: "numeric", month: "long", year: days > 300 ? "numeric" : undefined });
}

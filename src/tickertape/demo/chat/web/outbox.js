// The user's own messages, until the stream delivers them.
//
// The page creates a key for each message, so a message that is sent twice is stored once. Messages are sent
// one after another, so they arrive in the order in which they were written. Unsent messages survive a reload.

import { postJson, randomKey } from "./helpers.js";
import { explain } from "./problem.js";

const TIMEOUT = 15_000; // milliseconds to wait for an answer
const RETRY = 10_000; // milliseconds until waiting messages are sent again while the stream is open
const STORAGE_KEY = "chat-unsent";

/**
 * Dispatches "change" with an entry as `detail`. The states of an entry are "sending"; "waiting" (the server is not
 * reachable, and the message will be sent again); "failed" (refused, with the reason in `why`); "sent"; and "done"
 * (delivered or discarded).
 */
export class Outbox extends EventTarget {
  #entries = [];
  #name;
  #busy = false;
  #timer = 0;

  constructor(name) {
    super();
    this.#name = name;
    this.#entries = this.#restore();
  }

  /** Returns the undelivered messages of a room, oldest first. */
  of(room) {
    return this.#entries.filter((entry) => entry.room === room);
  }

  add(room, text) {
    this.#entries.push({ key: randomKey(), room, text, state: "new", why: "" });
    this.resend(this.#entries.at(-1));
  }

  /** Sends a message again with the same key. */
  resend(entry) {
    this.#set(entry, "sending");
    this.#sendNext();
  }

  /** Sends all waiting messages, because the server may be reachable again. */
  resendWaiting() {
    for (const entry of this.#entries) if (entry.state === "waiting") this.#set(entry, "sending");
    this.#sendNext();
  }

  discard(entry) {
    this.#set(entry, "done");
  }

  /** Removes the message with this key, because the stream has delivered it. */
  delivered(key) {
    const entry = this.#entries.find((entry) => entry.key === key);
    if (entry) this.#set(entry, "done");
  }

  /** Removes sent messages. The history of the room contains them. */
  forgetSent() {
    for (const entry of this.#entries.filter(({ state }) => state === "sent")) this.#set(entry, "done");
  }

  async #sendNext() {
    if (this.#busy) return;
    this.#busy = true;
    for (let entry; (entry = this.#entries.find(({ state }) => state === "sending")); ) await this.#send(entry);
    this.#busy = false;
  }

  async #send(entry) {
    const { room, text, key } = entry;
    try {
      const response = await postJson("messages", { room, text, key }, { signal: AbortSignal.timeout(TIMEOUT) });
      if (entry.state !== "sending") return; // already delivered by the stream
      if (response.ok) this.#set(entry, "sent");
      else if (response.status >= 500) this.#wait();
      else this.#set(entry, "failed", await explain(response));
    } catch {
      this.#wait();
    }
  }

  /** Makes all messages wait, so that they arrive in order. */
  #wait() {
    for (const entry of this.#entries) if (entry.state === "sending") this.#set(entry, "waiting");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (navigator.onLine ? this.resendWaiting() : this.#wait()), RETRY);
  }

  #set(entry, state, why = "") {
    Object.assign(entry, { state, why });
    if (state === "done") this.#entries = this.#entries.filter((other) => other !== entry);
    this.#save();
    this.dispatchEvent(new CustomEvent("change", { detail: entry }));
  }

  #save() {
    const unsent = this.#entries.filter(({ state }) => state !== "sent");
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ name: this.#name, unsent }));
  }

  #restore() {
    try {
      const { name, unsent } = JSON.parse(sessionStorage.getItem(STORAGE_KEY));
      return name === this.#name ? unsent.map((entry) => (entry.state === "failed" ? entry : { ...entry, state: "waiting" })) : [];
    } catch {
      return []; // nothing stored
    }
  }
}

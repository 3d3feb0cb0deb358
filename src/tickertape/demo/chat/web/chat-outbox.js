// One's own messages, from Enter until they come back by the stream.
//
// Each has a key that this page makes: however often it is sent, it is in the room once. They are sent
// one after the other, so that they arrive in the order in which they were written. What is not sent
// yet survives a reload of the tab.

import { explain } from "./problem.js";

const PATIENCE = 15_000; // milliseconds for an answer
const AGAIN = 10_000; // milliseconds after which a message is tried again that waits though the stream is open
const KEPT = "chat-unsent";

/**
 * Dispatches "change" with an entry as `detail`, whose state is "sending"; "waiting", for the server,
 * and it will be sent again; "failed", since it was refused, with the reason in `why`; "sent"; or
 * "over", when it is delivered or discarded.
 */
export class Outbox extends EventTarget {
  #entries = [];
  #name;
  #busy = false;
  #timer = 0;

  constructor(name) {
    super();
    this.#name = name;
    this.#entries = this.#restored();
  }

  /** The messages of a room that are not delivered yet, oldest first. */
  of(room) {
    return this.#entries.filter((entry) => entry.room === room);
  }

  add(room, text) {
    this.#entries.push({ key: crypto.randomUUID?.() ?? randomKey(), room, text, state: "new", why: "" });
    this.resend(this.#entries.at(-1));
  }

  /** Sends a message once more, under the key that it has. */
  resend(entry) {
    this.#set(entry, "sending");
    this.#pump();
  }

  /** Sends what waits: the server is there again. */
  resendWaiting() {
    for (const entry of this.#entries) if (entry.state === "waiting") this.#set(entry, "sending");
    this.#pump();
  }

  discard(entry) {
    this.#set(entry, "over");
  }

  /** Takes note that the message with this key has come by the stream. */
  delivered(key) {
    const entry = this.#entries.find((entry) => entry.key === key);
    if (entry) this.#set(entry, "over");
  }

  /** Forgets what is in the log by now: whoever reads that anew finds it there. */
  forgetSent() {
    for (const entry of this.#entries.filter(({ state }) => state === "sent")) this.#set(entry, "over");
  }

  async #pump() {
    if (this.#busy) return;
    this.#busy = true;
    for (let entry; (entry = this.#entries.find(({ state }) => state === "sending")); ) await this.#send(entry);
    this.#busy = false;
  }

  async #send(entry) {
    const { room, text, key } = entry;
    try {
      const response = await fetch("messages", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ room, text, key }),
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (entry.state !== "sending") return; // the stream was faster
      if (response.ok) this.#set(entry, "sent");
      else if (response.status >= 500) this.#wait();
      else this.#set(entry, "failed", await explain(response));
    } catch {
      this.#wait();
    }
  }

  /** Lets all that is on its way wait: what was written first is to arrive first. */
  #wait() {
    for (const entry of this.#entries) if (entry.state === "sending") this.#set(entry, "waiting");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (navigator.onLine ? this.resendWaiting() : this.#wait()), AGAIN);
  }

  #set(entry, state, why = "") {
    Object.assign(entry, { state, why });
    if (state === "over") this.#entries = this.#entries.filter((other) => other !== entry);
    this.#keep();
    this.dispatchEvent(new CustomEvent("change", { detail: entry }));
  }

  #keep() {
    const unsent = this.#entries.filter(({ state }) => state !== "sent");
    sessionStorage.setItem(KEPT, JSON.stringify({ name: this.#name, unsent }));
  }

  #restored() {
    try {
      const { name, unsent } = JSON.parse(sessionStorage.getItem(KEPT));
      return name === this.#name ? unsent.map((entry) => (entry.state === "failed" ? entry : { ...entry, state: "waiting" })) : [];
    } catch {
      return []; // nothing is kept
    }
  }
}

/** A key where the browser makes no UUIDs: on pages by plain HTTP from another machine. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The members of the room, and the members that are typing.

import { avatar } from "./conversation.js";
import { make } from "./helpers.js";

const TYPING_TIMEOUT = 5_000; // milliseconds until a typing notice expires

export class Members {
  #list;
  #count;
  #typing;
  #me;
  #names = new Set();
  #previous = new Set(); // names before the connection was lost: a restarted server reports them as new
  #timers = new Map(); // of members that are typing, by name

  constructor({ list, count, typing, me }) {
    this.#list = list;
    this.#count = count;
    this.#typing = typing;
    this.#me = me;
  }

  set(names) {
    this.#previous = this.#names;
    this.#names = new Set(names);
    for (const name of this.#timers.keys()) this.stopTyping(name);
    this.#show();
  }

  /** Adds a member. Returns true if the member was not known. */
  join(name) {
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    this.#show();
    return !this.#previous.delete(name);
  }

  /** Removes a member. Returns true if the member was known. */
  leave(name) {
    this.stopTyping(name);
    this.#previous.delete(name);
    if (!this.#names.delete(name)) return false;
    this.#show();
    return true;
  }

  startTyping(name) {
    if (name === this.#me) return;
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(() => this.stopTyping(name), TYPING_TIMEOUT));
    this.#showTyping();
  }

  stopTyping(name) {
    clearTimeout(this.#timers.get(name));
    if (this.#timers.delete(name)) this.#showTyping();
  }

  #show() {
    const names = [...this.#names].sort((a, b) => (b === this.#me) - (a === this.#me) || a.localeCompare(b));
    this.#count.textContent = names.length;
    this.#list.replaceChildren(
      ...names.map((name) => make("li", "", avatar(name), make("span", "", name === this.#me ? `${name} (you)` : name))),
    );
  }

  #showTyping() {
    const names = [...this.#timers.keys()];
    if (names.length > 2) this.#typing.textContent = "Several people are typing";
    else this.#typing.textContent = names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing` : "";
  }
}

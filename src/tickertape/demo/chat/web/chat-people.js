// Who is in the room, and who is writing at the moment.

import { avatar } from "./chat-log.js";

const WRITING = 5_000; // milliseconds for which somebody writes who has said so

export class People {
  #list;
  #count;
  #typing;
  #me;
  #names = new Set();
  #before = new Set(); // names before the stream was lost: a server that has started anew sees them come
  #writing = new Map(); // timers by name

  constructor({ list, count, typing, me }) {
    this.#list = list;
    this.#count = count;
    this.#typing = typing;
    this.#me = me;
  }

  set(names) {
    this.#before = this.#names;
    this.#names = new Set(names);
    for (const name of this.#writing.keys()) this.wrote(name);
    this.#show();
  }

  /** Adds somebody; returns whether that is news. */
  join(name) {
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    this.#show();
    return !this.#before.delete(name);
  }

  /** Takes somebody away; returns whether that is news. */
  leave(name) {
    this.wrote(name);
    this.#before.delete(name);
    if (!this.#names.delete(name)) return false;
    this.#show();
    return true;
  }

  /** Takes note that somebody is writing. */
  writes(name) {
    if (name === this.#me) return;
    clearTimeout(this.#writing.get(name));
    this.#writing.set(name, setTimeout(() => this.wrote(name), WRITING));
    this.#showWriting();
  }

  /** Takes note that somebody writes no more. */
  wrote(name) {
    clearTimeout(this.#writing.get(name));
    if (this.#writing.delete(name)) this.#showWriting();
  }

  #show() {
    const names = [...this.#names].sort((a, b) => (b === this.#me) - (a === this.#me) || a.localeCompare(b));
    this.#count.textContent = names.length;
    this.#list.replaceChildren(
      ...names.map((name) => {
        const item = document.createElement("li");
        const text = document.createElement("span");
        text.textContent = name === this.#me ? `${name} (you)` : name;
        item.append(avatar(name), text);
        return item;
      }),
    );
  }

  #showWriting() {
    const names = [...this.#writing.keys()];
    if (names.length > 2) this.#typing.textContent = "Several people are typing";
    else this.#typing.textContent = names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing` : "";
  }
}

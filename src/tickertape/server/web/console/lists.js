// Lists of subscribers, topics and runs: read again every few seconds, while the page is visible, and after each change.

import { credential, send } from "./credential.js";
import { at, make, makeButton } from "./dom.js";
import { explain } from "./problem.js";

const EVERY = 5_000; // milliseconds
const TYPING = 250; // milliseconds without a key after which to search
const SHOWN = 50; // rows
const SURE = 4_000; // milliseconds in which to press a button again

/** Fills a table with rows of cells, each a text, a number or an element. */
function fill(body, rows, empty) {
  const columns = body.closest("table").tHead.rows[0].cells.length;
  const none = Object.assign(make("td", "muted", empty), { colSpan: columns });
  body.replaceChildren(...(rows.length ? rows.map((cells) => make("tr", "", ...cells.map(cellOf))) : [make("tr", "", none)]));
}

const cellOf = (content) => make("td", typeof content === "number" ? "number" : "", typeof content === "number" ? content.toLocaleString("en") : content);

/** Makes a button that asks again before it acts. */
function sureButton(text, question, act) {
  const button = makeButton(text, "quiet small");
  button.addEventListener("click", () => {
    if (button.dataset.sure) return act();
    button.dataset.sure = "yes";
    button.textContent = question;
    setTimeout(() => {
      delete button.dataset.sure;
      button.textContent = text;
    }, SURE);
  });
  return button;
}

class List {
  #path;
  #said;
  #show;
  #search;
  #number = 0; // of the last request
  #typing = 0;

  /** Reads `path`, and calls `show` with the answer. A failure is explained in `said`. */
  constructor(path, said, show, search = null) {
    this.#path = path;
    this.#said = said;
    this.#show = show;
    this.#search = search;
    search?.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.read(), TYPING);
    });
    credential.addEventListener("change", () => this.read());
    document.addEventListener("visibilitychange", () => this.readIfVisible());
    setInterval(() => this.readIfVisible(), EVERY);
    this.read();
  }

  readIfVisible() {
    // Buttons that wait for a second press stay.
    if (!document.hidden && !document.querySelector("[data-sure]")) this.read();
  }

  async read() {
    const number = ++this.#number;
    const query = new URLSearchParams({ limit: SHOWN, ...(this.#search?.value ? { search: this.#search.value } : {}) });
    try {
      const response = await send(`${this.#path}?${query}`);
      const answer = response.ok ? await response.json() : null;
      if (number !== this.#number) return; // a later one is under way
      if (answer) this.#show(answer);
      if (!answer) this.say(await explain(response), true);
      else if (this.#said.classList.contains("wrong")) this.say("");
    } catch {
      this.say("The server cannot be reached.", true);
    }
  }

  say(text, wrong = false) {
    this.#said.textContent = text;
    this.#said.classList.toggle("wrong", wrong);
  }

  /** Sends a request that changes something, says how it went, and reads again. */
  async change(path, done, json) {
    try {
      const response = await send(path, { method: "POST", json });
      this.say(response.ok ? done : await explain(response), !response.ok);
    } catch {
      this.say("The server cannot be reached.", true);
    }
    await this.read();
  }
}

const more = (count, shown) => (count > shown ? `, ${shown.toLocaleString("en")} shown: search to see others` : "");

/** Returns a name as a part of a path. Slashes stay; a question mark would begin the query. */
const inPath = (name) => name.split("/").map(encodeURIComponent).join("/");

/** Starts the lists; `watch` shows the events of a topic. */
export function startLists(watch) {
  const subscribers = new List(
    "subscribers",
    at("subscribers-said"),
    (found) => {
      const { audiences, users } = found;
      at("subscriber-count").textContent = `${found.subscribers.toLocaleString("en")} in ${found.audience_count.toLocaleString("en")} audiences${more(found.audience_count, audiences.length)}`;
      fill(at("audiences"), audiences.map(({ topics, subscribers }) => [topics.join(" "), subscribers]), "No subscribers.");
      fill(at("users"), users.map(({ user, subscribers }) => [user, subscribers, disconnect(user)]), "No users: streams without a credential have none.");
    },
    at("search-subscribers"),
  );
  const disconnect = (user) =>
    sureButton("Disconnect", "End all streams?", () => subscribers.change("revocations", `The streams of ${user} end, and its credentials are refused.`, { user }));

  new List(
    "topics",
    at("topics-said"),
    ({ topics }) => fill(at("topics"), topics.map(({ topic, subscribers }) => [topic, subscribers, watchButton(topic)]), "No topics with events in memory."),
    at("search-topics"),
  );
  const watchButton = (topic) => {
    const button = makeButton("Watch", "quiet small");
    button.addEventListener("click", () => watch(topic));
    return button;
  };

  const runs = new List("runs", at("runs-said"), (found) =>
    fill(
      at("runs"),
      found.runs.map(({ name, run, owner, started }) => [
        owner ? `${name} of ${owner}` : name,
        started === null ? "–" : new Date(started * 1000).toLocaleTimeString("en-GB"),
        sureButton("Cancel", "Cancel it?", () => runs.change(`runs/${inPath(name)}/cancel?${new URLSearchParams({ run, ...(owner ? { owner } : {}) })}`, `${name} is cancelled.`)),
      ]),
      "No active runs.",
    ),
  );
}

// One event stream that is kept open, and the state it is in. Shared by every page.
//
// The browser's EventSource reconnects by itself after a lost connection and sends the id that it
// saw last. It stops permanently if the response is not an event stream, for example a proxy's 502.
// Then a new one is opened here, with the last id in its query.

const FIRST_DELAY = 1000; // milliseconds before a new EventSource is opened, doubled at each failure
const LONGEST_DELAY = 15000;
const RETRY = Number(document.documentElement.dataset.retry); // the reconnection time that our server sends

/**
 * Dispatches "change" when `state` changes: "connecting", "open", "lost" (it will be tried again at
 * `retryAt`, in milliseconds of performance.now()), or "closed" by close().
 */
export class Connection extends EventTarget {
  #url;
  #listeners;
  #Source;
  #source = null;
  #timer = 0;
  #failures = 0;

  state = "closed";
  retryAt = 0;
  lastEventId = "";
  reconnects = 0;
  reason = ""; // the reason of the loss, if it is known

  /** Listens at `url`; `listeners` are functions of a MessageEvent by event type; `Source` reads the stream. */
  constructor(url, listeners, Source = EventSource) {
    super();
    this.#url = new URL(url, document.baseURI);
    this.#listeners = listeners;
    this.#Source = Source;
    addEventListener("online", () => this.state === "lost" && this.#open());
    // The browser freezes a page that the user leaves, to show it again later. A connection would not survive that.
    addEventListener("pagehide", () => this.#source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.state !== "closed" && this.#open());
  }

  open() {
    this.#failures = 0;
    this.#open();
    this.#change("connecting");
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#change("closed");
  }

  #open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    if (this.lastEventId) this.#url.searchParams.set("lastEventId", this.lastEventId);
    const source = new this.#Source(this.#url);
    source.addEventListener("open", () => this.#opened());
    source.addEventListener("error", (event) => this.#failed(event));
    for (const [type, listener] of Object.entries(this.#listeners)) {
      source.addEventListener(type, (event) => {
        // Empty until a new EventSource has received an id: until then the id of the last one is used.
        if (event.lastEventId) this.lastEventId = event.lastEventId;
        listener(event);
      });
    }
    this.#source = source;
  }

  #opened() {
    this.#failures = 0;
    if (this.state === "lost") this.reconnects += 1;
    this.#change("open");
  }

  #failed({ reason = "", final = false }) {
    this.reason = reason;
    if (final) {
      this.#change("closed");
      return;
    }
    let delay = RETRY;
    if (this.#source.readyState === EventSource.CLOSED) {
      // Random, so that a thousand pages do not reconnect at the same time.
      delay = Math.min(FIRST_DELAY * 2 ** this.#failures, LONGEST_DELAY) * (0.75 + Math.random() / 4);
      this.#failures += 1;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#open(), delay);
    }
    this.retryAt = performance.now() + delay;
    this.#change("lost");
  }

  #change(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}

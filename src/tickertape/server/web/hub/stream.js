// An event stream that reports events of every type.
//
// The browser's EventSource dispatches an event to the listeners of its type, and there is no listener
// for all types. So this class reads the stream itself, with the part of EventSource that Connection needs.
// It never reconnects: Connection does.

import { explain } from "./problem.js";

const LINE_END = /\r\n|\n|\r/;

/**
 * Dispatches "open", "every" for each event (a MessageEvent with the event's own type as `name`), and
 * "error" with a `reason` in words; it is `final` if asking again would change nothing.
 */
export class EveryEventSource extends EventTarget {
  #abort = new AbortController();
  #lastEventId = "";
  #name = "";
  #data = [];

  readyState = EventSource.CONNECTING;

  constructor(url) {
    super();
    this.#run(url);
  }

  close() {
    this.readyState = EventSource.CLOSED;
    this.#abort.abort();
  }

  async #run(url) {
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await fetch(url, { headers, cache: "no-store", signal: this.#abort.signal });
      if (!response.ok) {
        this.#fail(await explain(response), response.status >= 400 && response.status < 500);
        return;
      }
      this.readyState = EventSource.OPEN;
      this.dispatchEvent(new Event("open"));
      await this.#read(response.body.pipeThrough(new TextDecoderStream()).getReader());
      this.#fail("The stream has ended.");
    } catch (error) {
      this.#fail(error.message);
    }
  }

  async #read(reader) {
    let rest = "";
    let afterCR = false; // it has ended a line already: an LF after it is the second half of a CRLF
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.readyState === EventSource.CLOSED) return;
      const lines = (rest + (afterCR && value.startsWith("\n") ? value.slice(1) : value)).split(LINE_END);
      afterCR = value.endsWith("\r");
      rest = lines.pop();
      for (const line of lines) this.#take(line);
    }
  }

  #take(line) {
    if (line === "") {
      this.#dispatch();
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?([^]*))?$/.exec(line);
    if (field === "data") this.#data.push(value ?? "");
    else if (field === "event") this.#name = value ?? "";
    else if (field === "id" && !value?.includes("\0")) this.#lastEventId = value ?? "";
  }

  #dispatch() {
    const [data, name] = [this.#data, this.#name || "message"];
    this.#data = [];
    this.#name = "";
    if (!data.length) return;
    const event = new MessageEvent("every", { data: data.join("\n"), lastEventId: this.#lastEventId });
    event.name = name;
    this.dispatchEvent(event);
  }

  #fail(reason, final = false) {
    if (this.readyState === EventSource.CLOSED) return;
    this.readyState = EventSource.CLOSED;
    const event = new Event("error");
    Object.assign(event, { reason, final });
    this.dispatchEvent(event);
  }
}

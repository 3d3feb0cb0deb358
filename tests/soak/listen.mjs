// Listen to a stream with npm's `eventsource` and print each event as a line of JSON. It gives up on any status but 200,
// so another one is made then, as a page does with the browser's own.
// Usage: node listen.mjs URL LAST_EVENT_ID

import { EventSource } from "eventsource";

const [url, start] = process.argv.slice(2);
let last = start;

const open = () => {
  const target = new URL(url);
  target.searchParams.set("last_event_id", last);
  const source = new EventSource(target);
  for (const type of ["message", "stream:gap"]) {
    source.addEventListener(type, ({ lastEventId, data }) => {
      last = lastEventId;
      process.stdout.write(`${JSON.stringify([type, lastEventId, data])}\n`);
    });
  }
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(open, 300);
  });
};

open();

// Listen to a stream with npm's `eventsource` and print each event as a line of JSON. It gives up on any status but 200,
// so another one is made then, as a page does with the browser's own.
// Usage: node listen.mjs URL LAST_EVENT_ID

import { EventSource } from "eventsource";

const [url, start] = process.argv.slice(2);
let last = start;

// If a server closes a connection before it has read the request, the fetch of Node 20 never settles, and the process
// may end in silence. So we give up an attempt that gets no answer; the source makes another one.
const ANSWER_WITHIN = 5_000;

const fetchInTime = async (input, init) => {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error("no answer")), ANSWER_WITHIN);
  try {
    return await fetch(input, { ...init, signal: AbortSignal.any([init.signal, late.signal]) });
  } finally {
    clearTimeout(timer);
  }
};

const open = () => {
  const target = new URL(url);
  target.searchParams.set("last_event_id", last);
  const source = new EventSource(target, { fetch: fetchInTime });
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

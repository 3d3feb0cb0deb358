// Clients for event streams in a page, each behind one function: it reads one response and returns its events.

export const CLIENTS = {
  async "tickertape.js"(url) {
    const { EventStream } = await import("/tickertape.js");
    return new Promise((resolve) => {
      const events = [];
      const every = ({ type, data, lastEventId }) => events.push([type, data, lastEventId]);
      const stream = new EventStream(url, { every });
      stream.onerror = () => {
        stream.close();
        resolve({ events, lastEventId: stream.lastEventId });
      };
    });
  },

  async EventSource(url, types) {
    return untilError(new EventSource(url), types);
  },

  async eventsource(url, types) {
    const { EventSource } = await import("eventsource");
    return untilError(new EventSource(url), types);
  },

  async "reconnecting-eventsource"(url, types) {
    const { default: Reconnecting } = await import("reconnecting-eventsource");
    return untilError(new Reconnecting(url), types);
  },

  async "@microsoft/fetch-event-source"(url) {
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    const events = [];
    const done = new Error("done");
    try {
      await fetchEventSource(url, {
        openWhenHidden: true,
        onmessage: ({ event, data, id }) => events.push([event || "message", data, id]),
        onclose() {
          throw done;
        },
        onerror(error) {
          throw error;
        },
      });
    } catch (error) {
      if (error !== done) throw error;
    }
    return { events };
  },
};

function untilError(source, types) {
  return new Promise((resolve) => {
    const events = [];
    for (const type of types) {
      source.addEventListener(type, ({ type, data, lastEventId }) => events.push([type, data, lastEventId]));
    }
    source.onerror = () => {
      source.close();
      resolve({ events });
    };
  });
}

/** Reads streams with a client, a few at a time: browsers open six connections to a host. */
export async function readAll(client, cases, limit = 4) {
  const found = [];
  const left = cases.entries();
  const work = async () => {
    for (const [index, { url, types }] of left) found[index] = await CLIENTS[client](url, types);
  };
  await Promise.all(Array.from({ length: limit }, work));
  return found;
}

/** Reads streams of bytes with tickertape.js, in chunks of a size, without a network. */
export async function readChunks(streams, size) {
  const real = globalThis.fetch;
  globalThis.fetch = async (url) => {
    const bytes = new Uint8Array(streams[Number(new URL(url).searchParams.get("stream"))]);
    let at = 0;
    const body = new ReadableStream({
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, (at += size)));
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
  try {
    return await readAll("tickertape.js", streams.map((_, number) => ({ url: `/?stream=${number}` })), 100);
  } finally {
    globalThis.fetch = real;
  }
}

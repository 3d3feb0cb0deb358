// Serve answers with the npm package resumable-stream: node vercel.mjs PORT PREFIX, and REDIS_URL.

import { createServer } from "node:http";
import { createResumableStreamContext } from "resumable-stream";

const [port, keyPrefix] = process.argv.slice(2);
const context = createResumableStreamContext({ waitUntil: (work) => work, keyPrefix });
const produced = new Map();

function answer(id, chunks, pace) {
  return new ReadableStream({
    async start(controller) {
      for (let number = 0; number < chunks; number++) {
        produced.set(id, number + 1);
        controller.enqueue(`data: word${number}.\n\n`);
        await new Promise((resolve) => setTimeout(resolve, pace * 1000));
      }
      controller.close();
    },
  });
}

async function send(stream, response) {
  if (stream === undefined || stream === null) {
    response.writeHead(stream === null ? 422 : 404).end();
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  for await (const chunk of stream) response.write(chunk);
  response.end();
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  const [id, after] = [url.searchParams.get("id"), Number(url.searchParams.get("after") ?? 0)];
  const [chunks, pace] = [Number(url.searchParams.get("chunks")), Number(url.searchParams.get("pace"))];
  try {
    if (url.pathname === "/start") {
      await send(await context.createNewResumableStream(id, () => answer(id, chunks, pace)), response);
    } else if (url.pathname === "/resume") {
      await send(await context.resumeExistingStream(id, after), response);
    } else if (url.pathname === "/produced") {
      response.end(String(produced.get(id) ?? 0));
    } else {
      response.writeHead(404).end();
    }
  } catch (error) {
    if (response.headersSent) response.destroy();
    else response.writeHead(500).end(String(error));
  }
}).listen(Number(port), "127.0.0.1");

process.on("unhandledRejection", (error) => console.error(String(error)));

// A channel of better-sse under Node's own HTTP server: `node better.mjs PORT`.
import { createServer } from "node:http";
import { createChannel, createSession } from "better-sse";

const channel = createChannel();

const server = createServer(async (request, response) => {
  if (request.url === "/events") {
    channel.register(await createSession(request, response));
    return;
  }
  const parts = [];
  for await (const part of request) parts.push(part);
  channel.broadcast(Buffer.concat(parts).toString());
  response.writeHead(204).end();
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });

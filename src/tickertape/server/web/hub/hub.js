import { showConnection } from "./badge.js";
import { Connection } from "./connection.js";
import { explain } from "./problem.js";
import { Rows } from "./rows.js";
import { EveryEventSource } from "./stream.js";

const at = (id) => document.getElementById(id);
const rows = new Rows(at("events"), at("empty"));
const subscribe = at("subscribe");
const publish = at("publish");
let connection = null;
let received = 0;

function showEvent(event) {
  if (event.name === "stream:gap") {
    showGap(JSON.parse(event.data));
    return;
  }
  const { topic, data } = JSON.parse(event.data); // the envelope
  rows.add([
    ["row-id", `#${event.lastEventId.split("-").at(-1)}`], // the epoch is the same in all rows
    ["row-topic", topic],
    ["row-event", event.name],
    ["row-data", data],
  ]);
  count(received + 1);
}

function count(events) {
  received = events;
  at("received").textContent = events;
}

function showGap({ reason }) {
  const why = reason === "reset" ? "The hub's log was reset" : "You were away for long";
  rows.add([["row-data", `${why}: the events in between are no longer kept.`]], "row-gap");
}

function showState() {
  at("trouble").textContent = connection.state === "open" ? "" : connection.reason;
  at("toggle").textContent = connection.state === "closed" ? "Connect" : "Disconnect";
}

function watch() {
  const query = new URLSearchParams();
  for (const topic of new Set(subscribe.elements.topics.value.split(/\s+/))) if (topic) query.append("topic", topic);
  const command = new URL(`events?${query}`, document.baseURI);
  at("command").textContent = `curl -N '${command.href.replaceAll("'", "%27").replaceAll("%2F", "/")}'`;
  query.append("last", subscribe.elements.last.value);
  query.append("envelope", "topic");
  connection?.close();
  rows.clear();
  count(0);
  connection = new Connection(`events?${query}`, { every: showEvent }, EveryEventSource);
  connection.addEventListener("change", showState);
  showConnection(connection);
  connection.open();
}

async function send(event) {
  event.preventDefault();
  const said = at("published");
  const fields = Object.fromEntries([...new FormData(publish)].filter(([name, value]) => value || name !== "event"));
  try {
    const response = await fetch("events", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    said.textContent = response.ok ? `Published as ${(await response.json()).cursor}` : await explain(response);
    said.classList.toggle("wrong", !response.ok);
  } catch {
    said.textContent = "The server cannot be reached.";
    said.classList.add("wrong");
  }
}

async function suggest() {
  try {
    const { topics } = await (await fetch("topics")).json();
    const options = topics.slice(0, 100).map(({ topic }) => Object.assign(document.createElement("option"), { value: topic }));
    at("known").replaceChildren(...options);
  } catch {
    // Suggestions are a help, not a need.
  }
}

subscribe.addEventListener("submit", (event) => {
  event.preventDefault();
  watch();
});
publish.addEventListener("submit", send);
for (const form of [subscribe, publish]) form.addEventListener("focusin", suggest);
at("toggle").addEventListener("click", () => (connection.state === "closed" ? connection.open() : connection.close()));
at("clear").addEventListener("click", () => rows.clear());
watch();

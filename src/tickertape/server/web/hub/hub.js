import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { explain } from "./problem.js";
import { Rows } from "./rows.js";
import { EventStream } from "./tickertape.js";

const at = (id) => document.getElementById(id);
const rows = new Rows(at("events"), at("empty"));
const subscribe = at("subscribe");
const publish = at("publish");
let stream = null;
let received = 0;

function showEvent(event) {
  if (event.type.startsWith("stream:")) return; // a notice
  const { topic, data } = JSON.parse(event.data); // the envelope
  rows.add([
    ["row-id", `#${event.lastEventId.split("-").at(-1)}`], // the epoch is the same in all rows
    ["row-topic", topic],
    ["row-event", event.type],
    ["row-data", data],
  ]);
  count(received + 1);
}

function count(events) {
  received = events;
  at("received").textContent = events;
}

function showGap({ detail }) {
  const why = detail.reason === "reset" ? "The hub's log was reset" : "You were away for long";
  rows.add([["row-data", `${why}: the events in between are no longer kept.`]], "row-gap");
}

function showState() {
  if (stream.state !== "connecting") at("trouble").textContent = stream.reason;
  at("toggle").textContent = stream.state === "closed" ? "Connect" : "Disconnect";
}

function watch() {
  const query = new URLSearchParams();
  for (const topic of new Set(subscribe.elements.topics.value.split(/\s+/))) if (topic) query.append("topic", topic);
  const command = new URL(`events?${query}`, document.baseURI);
  showCommand(`curl -N '${command.href.replaceAll("'", "%27").replaceAll("%2F", "/")}'`);
  query.append("last", subscribe.elements.last.value);
  query.append("envelope", "topic");
  stream?.close();
  rows.clear();
  count(0);
  stream = new EventStream(`events?${query}`, { every: showEvent });
  stream.addEventListener("gap", showGap);
  stream.addEventListener("statechange", showState);
  showStream(stream);
  showState();
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
at("toggle").addEventListener("click", () => (stream.state === "closed" ? stream.open() : stream.close()));
at("clear").addEventListener("click", () => rows.clear());
watch();

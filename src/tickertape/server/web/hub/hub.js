// The live stream: choose topics, watch their events, publish one. The page of the hub, and a part of the console.

import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { askFor, credential, credentialHeaders, send } from "./credential.js";
import { at } from "./dom.js";
import { explain } from "./problem.js";
import { Rows } from "./rows.js";
import { EventStream } from "./tickertape.js";

const WAITING = 200; // events that are kept while the list is paused, as many as the list has rows

const rows = new Rows(at("events"), at("empty"));
const subscribe = at("subscribe");
const publish = at("publish");
let stream = null;
let received = 0;
let waiting = null; // rows that arrived while the list is paused

function showEvent(event) {
  if (event.type.startsWith("stream:")) return; // a notice
  const { topic, data } = JSON.parse(event.data); // the envelope
  addRow([
    ["row-id", `#${event.lastEventId.split("-").at(-1)}`], // the epoch is the same in all rows
    ["row-topic", topic],
    ["row-event", event.type],
    ["row-data", data],
  ]);
  count(received + 1);
}

function addRow(cells, className) {
  if (!waiting) return rows.add(cells, className);
  waiting.push([cells, className]);
  if (waiting.length > WAITING) waiting.shift();
}

function pause() {
  const held = waiting;
  waiting = held ? null : [];
  at("pause").textContent = held ? "Pause" : "Continue";
  at("pause").setAttribute("aria-pressed", String(!held));
  for (const row of held ?? []) rows.add(...row);
  count(received);
}

function count(events) {
  received = events;
  at("received").textContent = events;
  at("waiting").textContent = waiting ? `, ${waiting.length === WAITING ? "the newest " : ""}${waiting.length} waiting` : "";
}

function showGap({ detail }) {
  const why = detail.reason === "reset" ? "The hub's log was reset" : "You were away for long";
  addRow([["row-data", `${why}: the events in between are no longer kept.`]], "row-gap");
}

function showState() {
  if (stream.state !== "connecting") at("trouble").textContent = stream.reason;
  at("toggle").textContent = stream.state === "closed" ? "Connect" : "Disconnect";
}

/** Shows the events of a topic instead of the present ones. */
export function watchTopics(topics) {
  subscribe.elements.topics.value = topics;
  watch();
  at("events-heading").scrollIntoView();
}

function watch() {
  if (waiting) pause();
  const query = new URLSearchParams();
  for (const topic of new Set(subscribe.elements.topics.value.split(/\s+/))) if (topic) query.append("topic", topic);
  const command = new URL(`events?${query}`, document.baseURI);
  showCommand(`curl -N '${command.href.replaceAll("'", "%27").replaceAll("%2F", "/")}'`);
  query.append("last", subscribe.elements.last.value);
  query.append("envelope", "topic");
  stream?.close();
  rows.clear();
  count(0);
  stream = new EventStream(`events?${query}`, { every: showEvent, headers: credentialHeaders });
  stream.addEventListener("gap", showGap);
  stream.addEventListener("statechange", showState);
  stream.addEventListener("error", ({ status }) => askFor(status));
  showStream(stream);
  showState();
}

async function publishEvent(event) {
  event.preventDefault();
  const said = at("published");
  const fields = Object.fromEntries([...new FormData(publish)].filter(([name, value]) => value || name !== "event"));
  try {
    const response = await send("events", { method: "POST", json: fields });
    said.textContent = response.ok ? `Published as ${(await response.json()).cursor}` : await explain(response);
    said.classList.toggle("wrong", !response.ok);
  } catch {
    said.textContent = "The server cannot be reached.";
    said.classList.add("wrong");
  }
}

async function suggest() {
  try {
    const { topics } = await (await send("topics")).json();
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
publish.addEventListener("submit", publishEvent);
for (const form of [subscribe, publish]) form.addEventListener("focusin", suggest);
at("toggle").addEventListener("click", () => (stream.state === "closed" ? stream.open() : stream.close()));
at("clear").addEventListener("click", () => rows.clear());
at("pause").addEventListener("click", pause);
at("filter").addEventListener("input", () => rows.filter(at("filter").value));
credential.addEventListener("change", watch);
watch();

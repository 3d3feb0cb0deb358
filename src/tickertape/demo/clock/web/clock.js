import { showStream } from "./badge.js";
import { showCommand } from "./command.js";
import { at } from "./helpers.js";
import { Rows } from "./rows.js";
import { openStream } from "./session.js";

const rows = new Rows(at("updates"), at("empty"));
const MOMENT = /(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)/; // RFC 3339
let received = 0;
let reconnects = 0;
let wasLost = false;

function parse(event) {
  try {
    const message = JSON.parse(event.data);
    if (typeof message === "object" && message !== null) return message;
  } catch {
    // Not JSON: show the data unchanged.
  }
  return { id: event.lastEventId, event: event.type, data: event.data };
}

function showUpdate(event) {
  const message = parse(event);
  const text = String(message.data);
  rows.add([
    ["row-id", `#${message.id}`],
    ["row-event", String(message.event)],
    ["row-data", text],
  ]);
  showMoment(text);
  received += 1;
  at("received").textContent = received;
  at("last-event-id").textContent = event.lastEventId || "none";
}

// Show the time in the time zone of the server.
function showMoment(text) {
  const moment = MOMENT.exec(text);
  if (!moment) return;
  const [, date, time, zone] = moment;
  const day = new Date(`${date}T00:00Z`).toLocaleDateString("en", { dateStyle: "full", timeZone: "UTC" });
  at("now").textContent = time;
  at("now").classList.remove("idle");
  at("now-note").textContent = `${day} · UTC${zone === "Z" ? "" : zone}`;
}

function showGap() {
  rows.add([["row-data", "Some updates that you missed are no longer available."]], "row-gap");
}

const stream = openStream("clock/updates");
stream.addEventListener("update", showUpdate);
stream.addEventListener("gap", showGap);
stream.addEventListener("statechange", () => {
  if (stream.state === "open" && wasLost) reconnects += 1;
  if (stream.state !== "connecting") wasLost = stream.state === "waiting";
  at("toggle").textContent = stream.state === "closed" ? "Connect" : "Disconnect";
  at("reconnects").textContent = reconnects;
});
at("toggle").addEventListener("click", () => (stream.state === "closed" ? stream.open() : stream.close()));
at("clear").addEventListener("click", () => rows.clear());
showCommand(`curl -N ${new URL("../events", document.baseURI)}`);

showStream(stream);

// The dashboard: the stream delivers samples, the last 15 minutes first, and the page draws charts.

import { showStream } from "./badge.js";
import { Card, Processes, cardsFor } from "./cards.js";
import { at, make, timeOf } from "./helpers.js";
import { History, MAX_SPAN, extremes } from "./history.js";
import { openStream } from "./session.js";
import { text, units } from "./units.js";

const ANNOUNCE_INTERVAL = 60; // seconds between two summaries for screen readers

export const history = new History();
export let cards = [];
let processes = null;
let specs = [];
let cores = -1;
let pointed = null; // the sample at the pointer
let drawnAt = -Infinity;
let announcedAt = -Infinity;
let frame = 0;

function showSample(event) {
  history.add(JSON.parse(event.data));
  frame ||= requestAnimationFrame(draw); // once per frame, and not while the page is hidden
}

function draw() {
  frame = 0;
  const { last } = history;
  const every = Number(at("every").value);
  // Allow half a second, because samples are not exact to the millisecond.
  if (!last || Math.abs(last.at - drawnAt) < every - 0.5) return;
  drawnAt = last.at;
  build(last);
  const span = Number(at("span").value);
  const samples = history.within(span);
  if (at("figures").hidden) for (const card of cards) card.draw(samples, span);
  else fillTable(samples);
  showFigures();
  announce(last);
  if (!history.samples.some(({ gap }) => gap)) at("note").hidden = true;
}

// Creates the cards for the first sample, and again if the number of cores changes.
function build(sample) {
  const count = sample.cpu?.cores.length ?? 0;
  if (count === cores) return;
  cores = count;
  at("empty").hidden = true;
  for (const card of cards) card.chart.destroy();
  at("board").replaceChildren();
  specs = cardsFor(sample);
  cards = specs.map((spec) => new Card(spec, at("board"), onPointer));
  processes = new Processes(at("board"));
}

function onPointer(sample) {
  if (sample === pointed) return;
  pointed = sample;
  showFigures();
}

function showFigures() {
  const sample = pointed ?? history.last;
  if (!sample) return;
  for (const card of cards) card.show(sample);
  processes.show(sample, history.samples.findLast((other) => other.busiest && other.at <= sample.at)?.busiest);
  at("host").textContent = sample.host;
  at("moment").textContent = `${pointed ? "at" : "last sample at"} ${timeOf(new Date(sample.at * 1000))}`;
}

function fillTable(samples) {
  const rows = specs.flatMap(({ title, unit: common, lines }) =>
    lines.map(([label, pick, unit = common]) => {
      const { average, lowest, highest } = extremes(samples, pick);
      const head = Object.assign(make("th", "", `${title}, ${label.toLowerCase()}`), { scope: "row" });
      return make("tr", "", head, ...[pick(samples.at(-1)), average, lowest, highest].map((value) => make("td", "", text(unit, value))));
    }),
  );
  at("rows").replaceChildren(...rows);
}

function announce(sample) {
  // The first sample after a gap has no rates.
  if (sample.after === null || Math.abs(sample.at - announcedAt) < ANNOUNCE_INTERVAL) return;
  announcedAt = sample.at;
  const memory = sample.memory && (100 * sample.memory.used) / sample.memory.total;
  at("summary").textContent =
    `${sample.host} at ${timeOf(new Date(sample.at * 1000))}: CPU ${text(units.percent, sample.cpu?.total)}, ` +
    `memory ${text(units.percent, memory)}, load ${text(units.number, sample.load?.[0])}, ` +
    `network in ${text(units.bytesPerSecond, sample.network?.in)}, out ${text(units.bytesPerSecond, sample.network?.out)}.`;
}

function drawNow() {
  drawnAt = -Infinity;
  frame ||= requestAnimationFrame(draw);
}

function showGap() {
  at("note").textContent = "Some samples that you missed are no longer available: the charts have a gap.";
  at("note").hidden = false;
}

const stream = openStream("dashboard/metrics", { last: MAX_SPAN });
stream.addEventListener("metrics", showSample);
stream.addEventListener("gap", showGap);
stream.addEventListener("statechange", () => {
  at("toggle").textContent = stream.state === "closed" ? "Resume" : "Pause";
});
at("toggle").addEventListener("click", () => (stream.state === "closed" ? stream.open() : stream.close()));
at("span").addEventListener("change", drawNow);
at("every").addEventListener("change", drawNow);
at("table").addEventListener("click", () => {
  const shown = at("figures").hidden;
  at("figures").hidden = !shown;
  at("board").hidden = shown;
  at("table").setAttribute("aria-pressed", shown);
  drawNow();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => cards.forEach((card) => card.chart.redraw()));

showStream(stream);

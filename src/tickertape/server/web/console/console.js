// The console: charts and totals from the stream of statistics, lists, and the live stream of the hub's own page.

import { bytes, Chart, percent, seconds, short } from "./charts.js";
import { askFor, credential, credentialHeaders } from "./credential.js";
import { at, make } from "./dom.js";
import { watchTopics } from "./hub.js";
import { startLists } from "./lists.js";
import { EventStream } from "./tickertape.js";

const KEPT = 300; // samples: five minutes

const charts = [
  new Chart("Open streams", [({ streams }) => sum(streams)]),
  new Chart("Published per second", [({ rates }) => rates.published]),
  new Chart("Delivered per second", [({ rates }) => rates.delivered]),
  new Chart("Sent per second", [({ rates }) => rates.bytes], bytes),
  new Chart("Publish to written, p99, p50", [({ latency }) => latency.p99, ({ latency }) => latency.p50], seconds),
  new Chart("Events not sent yet", [({ lag }) => lag]),
  new Chart("Errors, gaps, refusals per s", [({ rates }) => rates.errors + rates.gaps + rates.refused]),
  new Chart("Processor", [({ rates }) => rates.cpu], percent),
  new Chart("Memory", [({ memory }) => memory], bytes),
];

const TOTALS = { closed: "Streams closed", gaps: "Gaps sent", errors: "Broker errors", limits: "Limits hit" };

const sum = (numbers) => Object.values(numbers).reduce((total, number) => total + number, 0);

let samples = [];

function showSamples(event) {
  samples = [...samples, ...JSON.parse(event.data)].slice(-KEPT);
  if (!samples.length) return;
  for (const chart of charts) chart.draw(samples);
  showTotals(samples.at(-1));
}

function showTotals({ workers, restarts, totals }) {
  at("workers").textContent = `${workers} ${workers === 1 ? "worker" : "workers"}${restarts ? `, ${restarts} restarts` : ""}`;
  const shown = Object.entries(TOTALS).filter(([name]) => sum(totals[name]));
  at("totals").replaceChildren(
    ...shown.flatMap(([name, title]) => [
      make("dt", "label", title),
      make("dd", "", Object.entries(totals[name]).map(([reason, count]) => `${reason.replaceAll("_", " ")} ${short(count)}`).join(" · ")),
    ]),
  );
}

at("charts").append(...charts.map(({ element }) => element));
const stream = new EventStream("statistics", { headers: credentialHeaders });
stream.addEventListener("samples", showSamples);
stream.addEventListener("statechange", () => {
  if (stream.state !== "connecting") at("statistics-trouble").textContent = stream.reason;
});
stream.addEventListener("error", ({ status }) => askFor(status));
credential.addEventListener("change", () => stream.open());
startLists((topic) => watchTopics(topic));

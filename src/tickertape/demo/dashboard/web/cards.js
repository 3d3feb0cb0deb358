// The cards of the dashboard: a heading, large numbers, and a chart.

import { Chart, lineColour } from "./chart.js";
import { make } from "./helpers.js";
import { extremes } from "./history.js";
import { text, units } from "./units.js";

const gibibytes = ({ used, total }) => `${text(units.bytes, used)} of ${text(units.bytes, total)}`;

/** Returns the specifications of the cards for the values in `sample`. */
export function cardsFor(sample) {
  const count = sample.cpu?.cores.length ?? 0;
  const found = [
    {
      title: "CPU",
      wide: true,
      unit: units.percent,
      scale: { top: 100, fixed: true },
      lines: [["In use", (of) => of.cpu?.total]],
      detail: () => `${count} ${count === 1 ? "core" : "cores"}`,
    },
    {
      title: "Memory",
      unit: units.percent,
      scale: { top: 100, fixed: true },
      lines: [["In use", (of) => of.memory && (100 * of.memory.used) / of.memory.total]],
      detail: (of) => (of.memory ? gibibytes(of.memory) : ""),
    },
    {
      title: "CPU cores",
      unit: units.wholePercent,
      scale: { map: true },
      lines: Array.from({ length: count }, (_, core) => [`Core ${core}`, (of) => of.cpu?.cores[core]]),
    },
    {
      title: "Load",
      unit: units.number,
      scale: { top: 1 },
      lines: [1, 5, 15].map((minutes, at) => [`${minutes} min`, (of) => of.load?.[at]]),
    },
    {
      title: "Network",
      unit: units.bytesPerSecond,
      scale: { top: 1024 },
      lines: [
        ["In", (of) => of.network?.in],
        ["Out", (of) => of.network?.out],
      ],
    },
    {
      title: "Disk",
      unit: units.bytesPerSecond,
      scale: { top: 1024 },
      lines: [
        ["Read", (of) => of.disk?.read],
        ["Written", (of) => of.disk?.write],
      ],
    },
    {
      title: "Hub",
      unit: units.number,
      scale: { top: 2 },
      lines: [
        ["Subscribers", (of) => of.hub.subscribers, units.count],
        ["Events", (of) => of.hub.events, units.perSecond],
        ["Deliveries", (of) => of.hub.deliveries, units.perSecond],
        ["Dropped", (of) => of.hub.drops, units.perSecond],
      ],
    },
  ];
  return found.filter(({ lines }) => lines.length);
}

export class Card {
  #spec;
  #values;
  #detail = make("span", "muted");
  #place = make("div", "chart");
  #chart = null;

  /** Adds the card to `board`. `onPointer` receives the sample at the pointer. */
  constructor(spec, board, onPointer) {
    this.#spec = spec;
    const { title, wide, unit, lines, scale } = spec;
    const figures = lines.map(([label], index) => figure(label, lines.length > 1 && !scale.map ? lineColour(index) : null));
    this.#values = figures.map(({ value }) => value);
    const size = scale.map ? "many" : lines.length > 2 ? "some" : lines.length > 1 ? "few" : "one";
    const list = make("dl", `values ${size}`, ...figures.map(({ element }) => element));
    const head = make("div", "card-top", make("h2", "", title), this.#detail);
    this.#place.setAttribute("role", "img");
    board.append(make("section", wide ? "card wide" : "card", head, list, this.#place));
    this.#chart = new Chart(this.#place, { picks: lines.map(([, pick]) => pick), unit, onPointer, ...scale });
  }

  get chart() {
    return this.#chart;
  }

  /** Shows the numbers of one sample. */
  show(sample) {
    this.#spec.lines.forEach(([, pick, unit = this.#spec.unit], index) => {
      const [number, name] = unit(pick(sample));
      const [shown, suffix] = this.#values[index].children;
      shown.textContent = number;
      suffix.textContent = name;
    });
    this.#detail.textContent = this.#spec.detail?.(sample) ?? "";
  }

  /** Draws the chart, and updates its description for screen readers. */
  draw(samples, span) {
    this.#chart.draw(samples, span);
    const seconds = Math.min(span, samples.at(-1).at - samples[0].at);
    const length = seconds < 60 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
    const lines = this.#spec.lines.map(([label, pick, unit = this.#spec.unit]) => {
      const { lowest, average, highest } = extremes(samples, pick);
      const [low, middle, high] = [lowest, average, highest].map((value) => text(unit, value));
      return `${label}: ${middle} on average, from ${low} to ${high}`;
    });
    this.#place.setAttribute("aria-label", `${this.#spec.title} over ${length}. ${lines.join("; ")}.`);
  }
}

function figure(label, colour) {
  const term = make("dt", "label");
  if (colour) term.append(make("span", `swatch ${colour}`));
  term.append(label);
  const value = make("dd", "", make("span"), make("small"));
  return { element: make("div", "", term, value), value };
}

/** The card of the processes that use most CPU time. */
export class Processes {
  #count = make("span", "muted");
  #rows = make("tbody");

  constructor(board) {
    const heads = ["Busiest", "CPU", "Memory"].map((name) => Object.assign(make("th", "", name), { scope: "col" }));
    const table = make("table", "", make("thead", "", make("tr", "", ...heads)), this.#rows);
    board.append(make("section", "card", make("div", "card-top", make("h2", "", "Processes"), this.#count), table));
  }

  /** Shows the number of processes, and the `busiest` processes of the last scan. */
  show(sample, busiest) {
    this.#count.textContent = `${units.count(sample.processes)[0]} processes`;
    this.#rows.replaceChildren(
      ...(busiest ?? []).map(({ name, cpu, memory }) =>
        make("tr", "", make("td", "", name), make("td", "", text(units.percent, cpu)), make("td", "", text(units.bytes, memory))),
      ),
    );
  }
}

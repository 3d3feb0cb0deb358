// Small charts of the last minutes, as SVG. Each has the current number and up to two lines.

import { make } from "./dom.js";

const WIDTH = 300; // units of the drawing
const LEAST = 60; // seconds from the left edge to the right one
const MOST = 300;
const HEIGHT = 60;
const BREAK = 5; // seconds without a sample after which a line is interrupted
const SVG = "http://www.w3.org/2000/svg";

const units = ["", " k", " M", " G"];

/** Formats a number with three digits at most: 1.23 k. */
export function short(number) {
  let unit = 0;
  while (Math.abs(number) >= 999.5 && unit < units.length - 1) [number, unit] = [number / 1000, unit + 1];
  const digits = number === 0 || Number.isInteger(number) || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
  return number.toFixed(digits) + units[unit];
}

export const bytes = (number) => `${short(number)}${number >= 999.5 ? "" : " "}B`;
export const seconds = (number) => (number === null ? "–" : number < 0.9995 ? `${short(number * 1000)} ms` : `${short(number)} s`);
export const percent = (share) => `${short(Math.round(share * 1000) / 10)} %`;

export class Chart {
  #lines;
  #format;
  #value = make("p", "chart-value", "–");
  #most = make("span", "chart-most");
  #svg = document.createElementNS(SVG, "svg");
  #title;

  /** Makes a chart. `lines` are functions that return the value of a line from a sample, or null. The first is shown in words. */
  constructor(title, lines, format = short) {
    this.#title = title;
    this.#lines = lines.map((value) => [value, document.createElementNS(SVG, "path")]);
    this.#format = format;
    this.#svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#svg.setAttribute("role", "img");
    this.#svg.append(...this.#lines.map(([, path]) => path).reverse());
    this.element = make("figure", "chart", make("figcaption", "label", title), this.#value, this.#svg, this.#most);
  }

  /** Draws samples, which are in the order of their times. */
  draw(samples) {
    const end = samples.at(-1).time;
    const shown = samples.filter(({ time }) => time > end - MOST);
    const span = Math.max(end - shown[0].time, LEAST);
    const most = Math.max(...this.#lines.flatMap(([value]) => shown.map((sample) => value(sample) ?? 0)));
    for (const [value, path] of this.#lines) path.setAttribute("d", outline(shown, value, end, span, most));
    const now = this.#format(this.#lines[0][0](shown.at(-1)));
    this.#value.textContent = now;
    this.#most.textContent = `max ${this.#format(most)}`;
    this.#svg.setAttribute("aria-label", `${this.#title} in the last minutes: now ${now}, at most ${this.#format(most)}`);
  }
}

function outline(samples, value, end, span, most) {
  let last = -Infinity;
  let text = "";
  for (const sample of samples) {
    const number = value(sample);
    if (number === null) continue;
    const x = ((WIDTH * (span - end + sample.time)) / span).toFixed(1);
    const y = (HEIGHT - 2 - (HEIGHT - 4) * (most ? number / most : 0)).toFixed(1);
    text += `${sample.time - last > BREAK ? "M" : "L"}${x} ${y}`;
    last = sample.time;
  }
  return text;
}

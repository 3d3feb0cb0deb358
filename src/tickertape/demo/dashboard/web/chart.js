// One chart: lines over time, drawn by uPlot in the colours of the page.
//
// uPlot.esm.js, uPlot.min.css and uPlot.LICENSE are from version 1.6.32 of the npm package "uplot".

import uPlot from "./uPlot.esm.js";

import { timeOf } from "./helpers.js";
import { columns, gaps } from "./history.js";
import { text, units } from "./units.js";

const MIN_SPAN = 30; // seconds: the first samples do not fill the chart
const POWERS = Array.from({ length: 60 }, (_, power) => 2 ** power); // steps of an axis in bytes

const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(`--${name}`).trim();

/** Returns the name of the colour for line number `index`. */
export const lineColour = (index) => `series-${(index % 6) + 1}`;

export class Chart {
  plot; // uPlot's own object

  #picks;
  #samples = [];
  #range = [0, 1];

  /**
   * Draws into `place`. Each of `picks` returns the value of a line in a sample. The scale ends at `top`, or higher
   * unless it is `fixed`. A `map` shows percentages as rows: the higher the value, the darker the colour.
   * `onPointer` receives the sample at the pointer, or null.
   */
  constructor(place, { picks, top, fixed = false, map = false, unit, onPointer }) {
    this.#picks = picks;
    const size = () => ({ width: place.clientWidth, height: place.clientHeight });
    this.plot = new uPlot(
      {
        ...size(),
        padding: [8, 4, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "metrics" }, points: { show: !map, size: 7 } },
        scales: {
          x: { range: () => this.#range },
          y: { range: (plot, low, high) => [0, map ? picks.length : fixed ? top : Math.max(top, (high ?? 0) * 1.15)] },
        },
        axes: [timeAxis(), map ? rowAxis(picks.length) : valueAxis(unit, fixed)],
        series: [{}, ...picks.map((pick, index) => (map ? HIDDEN : line(index, picks.length)))],
        hooks: {
          setCursor: [(plot) => onPointer(this.#sampleAt(plot.cursor.idx))],
          drawClear: [(plot) => this.#shade(plot)],
          draw: map ? [drawMap] : [],
        },
      },
      columns([], picks),
      place,
    );
    new ResizeObserver(() => this.plot.setSize(size())).observe(place);
  }

  /** Draws `samples`, from left to right: the last `span` seconds, or fewer at the beginning. */
  draw(samples, span) {
    this.#samples = samples;
    const end = samples.at(-1)?.at ?? Date.now() / 1000;
    const start = Math.min(samples[0]?.at ?? end, end - MIN_SPAN);
    this.#range = [Math.max(start, end - span), end];
    this.plot.setData(columns(samples, this.#picks));
  }

  /** Draws again, for example after a change of colours. */
  redraw() {
    this.plot.redraw(false, true);
  }

  /** Removes the chart and its listeners. */
  destroy() {
    this.plot.destroy();
  }

  #sampleAt(index) {
    const time = index == null ? null : this.plot.data[0][index];
    return time == null ? null : (this.#samples.find((sample) => sample.at === time) ?? null);
  }

  // Shade the gaps, so that they do not look like zero.
  #shade({ ctx, bbox, valToPos }) {
    ctx.save();
    ctx.fillStyle = colour("gap");
    for (const [from, to] of gaps(this.#samples)) {
      const left = Math.max(valToPos(from, "x", true), bbox.left);
      const right = Math.min(valToPos(to, "x", true), bbox.left + bbox.width);
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
    ctx.restore();
  }
}

const HIDDEN = { paths: () => null, points: { show: false } }; // drawMap draws it

// Each pixel shows the average of its samples, because 15 minutes have more samples than the chart has pixels.
function drawMap({ ctx, bbox, data: [times, ...rows], valToPos }) {
  const height = bbox.height / rows.length;
  const places = times.map((time) => Math.round(valToPos(time, "x", true)));
  ctx.save();
  ctx.fillStyle = colour("series-1");
  rows.forEach((values, row) => {
    let [from, sum, count] = [null, 0, 0];
    values.forEach((value, at) => {
      if (value === null || from === null) {
        [from, sum, count] = [value === null ? null : places[at], 0, 0];
        return;
      }
      [sum, count] = [sum + value, count + 1];
      if (places[at] === from) return;
      ctx.globalAlpha = 0.05 + (0.95 * sum) / count / 100;
      ctx.fillRect(from, bbox.top + row * height, places[at] - from, height - Math.min(2, height / 4));
      [from, sum, count] = [places[at], 0, 0];
    });
  });
  ctx.restore();
}

function rowAxis(count) {
  const step = Math.ceil(count / 8);
  const rows = Array.from({ length: Math.ceil(count / step) }, (_, at) => at * step);
  return {
    ...axis,
    splits: () => rows.map((row) => count - row - 0.5), // the first row is at the top
    values: () => rows.map(String),
    size: 44,
    gap: 8,
    grid: { show: false },
  };
}

function line(index, count) {
  const stroke = () => colour(lineColour(index));
  return {
    stroke,
    fill: count === 1 ? () => `${stroke()}26` : undefined, // the colour with its opacity
    width: 1.75,
    dash: index > 1 ? [6, 4] : undefined, // dashed, so that a line below it is visible
    points: { show: false, size: 4, stroke, fill: stroke, filter: isolated },
  };
}

// A value between two gaps has no line, so it is drawn as a point.
function isolated(plot, series, show) {
  const values = plot.data[series];
  const none = (at) => values[at] == null;
  return show ? null : values.flatMap((value, at) => (!none(at) && none(at - 1) && none(at + 1) ? [at] : []));
}

const LETTER_WIDTH = 6; // pixels

const axis = { font: "11px system-ui, sans-serif", stroke: () => colour("muted"), ticks: { show: false } };

function timeAxis() {
  const label = (plot, time, step) => {
    const text = timeOf(new Date(time * 1000), step < 60);
    // A label that would be cut off at the right is left out.
    return plot.valToPos(time, "x") + text.length * LETTER_WIDTH / 2 > plot.over.clientWidth + 4 ? "" : text;
  };
  const values = (plot, splits, axisIndex, space, step) => splits.map((time) => label(plot, time, step));
  return { ...axis, values, size: 24, gap: 6, space: 64, grid: { show: false } };
}

function valueAxis(unit, fixed) {
  const bytes = unit === units.bytes || unit === units.bytesPerSecond;
  return {
    ...axis,
    values: (plot, splits) => splits.map((value) => short(unit, value)),
    ...(bytes ? { incrs: POWERS } : fixed ? { incrs: [50, 100] } : {}),
    size: bytes ? 74 : 44,
    gap: 8,
    space: 26,
    grid: { stroke: () => colour("line"), width: 1 },
  };
}

function short(unit, value) {
  return text(unit, value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

// The samples of the last minutes, and the gaps between them. Does not use the DOM.

export const MAX_SPAN = 900; // seconds: the longest span on the page

export class History {
  samples = []; // in order of time; a sample after a gap has `gap: true`

  get last() {
    return this.samples.at(-1);
  }

  /** Adds a sample and removes newer ones: the log was replayed, or the clock of the server was set back. */
  add(sample) {
    while (this.samples.length && this.last.at >= sample.at) this.samples.pop();
    sample.gap = this.samples.length > 0 && sample.after !== this.last.at;
    this.samples.push(sample);
    let old = 0;
    while (this.samples[old].at < sample.at - MAX_SPAN) old += 1;
    if (old > 64) this.samples.splice(0, old); // in batches, because splice moves all samples
  }

  /** Returns the samples of the last `span` seconds. */
  within(span) {
    const from = (this.last?.at ?? 0) - span;
    return this.samples.filter((sample) => sample.at >= from);
  }
}

/** Returns columns for uPlot: times, then the values of each of `picks`. A gap is a row of nulls. */
export function columns(samples, picks) {
  const found = [[], ...picks.map(() => [])];
  const push = (time, values) => {
    found[0].push(time);
    values.forEach((value, at) => found[at + 1].push(value ?? null));
  };
  const nulls = picks.map(() => null);
  samples.forEach((sample, at) => {
    if (sample.gap && at) push((samples[at - 1].at + sample.at) / 2, nulls);
    push(sample.at, picks.map((pick) => pick(sample)));
  });
  return found;
}

/** Returns the gaps as pairs of times: [from, to]. */
export function gaps(samples) {
  return samples.flatMap((sample, at) => (sample.gap && at ? [[samples[at - 1].at, sample.at]] : []));
}

/** Returns the lowest, the average and the highest value of `pick`, or nulls if there is no value. */
export function extremes(samples, pick) {
  const values = samples.map(pick).filter((value) => value != null);
  if (!values.length) return { lowest: null, average: null, highest: null };
  return {
    lowest: values.reduce((a, b) => Math.min(a, b)),
    average: values.reduce((a, b) => a + b) / values.length,
    highest: values.reduce((a, b) => Math.max(a, b)),
  };
}

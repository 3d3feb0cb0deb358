// The samples of the last minutes, and where between them something is missing. No DOM here.

export const KEPT = 900; // seconds: the longest span that the page shows

export class History {
  samples = []; // in the order of time; one that something is missing before has `gap: true`

  get last() {
    return this.samples.at(-1);
  }

  /** Adds a sample. What is not older goes: the log was replayed, or the server's clock was set back. */
  add(sample) {
    while (this.samples.length && this.last.at >= sample.at) this.samples.pop();
    sample.gap = this.samples.length > 0 && sample.after !== this.last.at;
    this.samples.push(sample);
    let old = 0;
    while (this.samples[old].at < sample.at - KEPT) old += 1;
    if (old > 64) this.samples.splice(0, old); // not one by one, that is work
  }

  /** Returns those of the last `span` seconds. */
  within(span) {
    const from = (this.last?.at ?? 0) - span;
    return this.samples.filter((sample) => sample.at >= from);
  }
}

/** Returns columns as uPlot takes them: times, then the values of each of `picks`; a gap is a row of nulls. */
export function columns(samples, picks) {
  const found = [[], ...picks.map(() => [])];
  const push = (time, values) => {
    found[0].push(time);
    values.forEach((value, at) => found[at + 1].push(value ?? null));
  };
  const nothing = picks.map(() => null);
  samples.forEach((sample, at) => {
    if (sample.gap && at) push((samples[at - 1].at + sample.at) / 2, nothing);
    push(sample.at, picks.map((pick) => pick(sample)));
  });
  return found;
}

/** Returns the stretches of time, [from, to], in which nothing is known. */
export function gaps(samples) {
  return samples.flatMap((sample, at) => (sample.gap && at ? [[samples[at - 1].at, sample.at]] : []));
}

/** Returns the lowest, the average and the highest of what `pick` finds; null for what there is not. */
export function extremes(samples, pick) {
  const values = samples.map(pick).filter((value) => value != null);
  if (!values.length) return { lowest: null, average: null, highest: null };
  return {
    lowest: values.reduce((a, b) => Math.min(a, b)),
    average: values.reduce((a, b) => a + b) / values.length,
    highest: values.reduce((a, b) => Math.max(a, b)),
  };
}

// Numbers with units, as text. A missing number is a dash.

const MISSING = ["–", ""];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function digits(value) {
  return value.toFixed(value === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
}

const optional = (format) => (value) => (value == null ? MISSING : format(value));

/** Functions that return a number and its unit: ["12.3", "KiB/s"]. */
export const units = {
  percent: optional((value) => [value >= 99.95 ? "100" : value.toFixed(1), "%"]),
  wholePercent: optional((value) => [value.toFixed(0), "%"]),
  bytes: optional((value) => {
    const power = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), BYTES.length - 1);
    const scaled = value / 1024 ** power;
    return [power ? digits(scaled) : String(Math.round(scaled)), BYTES[power]];
  }),
  bytesPerSecond: optional((value) => {
    const [figure, unit] = units.bytes(value);
    return [figure, `${unit}/s`];
  }),
  perSecond: optional((value) => [value.toFixed(value >= 100 ? 0 : 1), "/s"]),
  number: optional((value) => [digits(value), ""]),
  count: optional((value) => [String(Math.round(value)), ""]),
};

/** Returns a number and its unit as one text. */
export function text(unit, value) {
  return unit(value).join("\u202f").trim();
}

// Numbers and times in the reader's locale.

const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const plain = new Intl.NumberFormat(undefined, { useGrouping: false });
const two = new Intl.NumberFormat(undefined, { minimumIntegerDigits: 2 });
const one = new Intl.PluralRules("en");
const exact = new Intl.NumberFormat(undefined, { maximumFractionDigits: 6 });
const fourPlaces = new Intl.NumberFormat(undefined, { minimumFractionDigits: 4, maximumFractionDigits: 4 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const timeOfDay = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** @param {number} value */
export const count = (value) => number.format(value);
/** "1 render", "20 renders". @param {number} value @param {string} noun */
export const counted = (value, noun) => `${number.format(value)} ${noun}${one.select(value) === "one" ? "" : "s"}`;
/** @param {number} value */
export const cost = (value) => exact.format(value);
/** "0.9755". @param {number} value */
export const similarity = (value) => fourPlaces.format(value);
/** @param {number} value 0 to 1 */
export const share = (value) => percent.format(value);
/** Days of UTC. @param {string} from @param {string} to */
export const period = (from, to) => day.formatRange(new Date(from), new Date(to));
/** @param {string} iso */
export const when = (iso) => moment.format(new Date(iso));

/** @param {string} iso @returns {string} "14:30" */
export const clock = (iso) => timeOfDay.format(new Date(iso));

/** @param {string} iso @returns {string} "3 minutes ago" */
export function ago(iso) {
  const seconds = (new Date(iso).getTime() - Date.now()) / 1000;
  for (const [unit, size] of /** @type {[Intl.RelativeTimeFormatUnit, number][]} */ (
    [["day", 86400], ["hour", 3600], ["minute", 60]])) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.round(seconds), "second");
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const at = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(bytes) / 3)));
  const value = bytes / 1000 ** at;
  return `${number.format(at ? Math.round(value * 10) / 10 : value)} ${units[at]}`;
}

/** @param {number} seconds @returns {string} "1:02:03" or "4.2 s" */
export function span(seconds) {
  if (seconds < 60) return `${number.format(Math.round(seconds * 10) / 10)} s`;
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), rest = Math.floor((whole % 3600) / 60);
  return (hours ? [plain.format(hours), two.format(rest)] : [plain.format(rest)]).concat(two.format(whole % 60)).join(":");
}

/** @param {{width: number, height: number, frameRate: number, durationSeconds: number}} facts */
export const facts = (facts) =>
  `${plain.format(facts.width)} × ${plain.format(facts.height)}, ${count(facts.frameRate)} fps, ${span(facts.durationSeconds)}`;

const CURVES = /** @type {Record<string, string>} */ ({ smpte2084: "HDR (PQ)", "arib-std-b67": "HDR (HLG)" });

/** What else is in a file: "H264, 10 bits, HDR (PQ), sound AAC".
 * @param {import("./api.js").Row} file `GET /v1/files/{id}/contents` of a file of which they are known */
export function contents(file) {
  const bits = file.pixelFormat?.match(/(?:p0?|gray|gbrp)(\d{1,2})[lb]e$/)?.[1] ?? "8";
  const sound = file.sound?.length ? `sound ${file.sound.join(", ").toUpperCase()}` : "no sound";
  return [file.codec.toUpperCase(), `${bits} bits`, CURVES[file.transfer] ?? "SDR", sound].join(", ");
}

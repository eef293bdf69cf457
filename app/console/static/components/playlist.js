// Plays a render's playlist, also while it grows, by Media Source Extensions; natively where a browser lacks them.
// It reads the server's own playlists alone, so that no library is needed: the smallest that plays HLS has 120 kB in gzip.

import { pause } from "../api.js";

const TYPE = "application/vnd.apple.mpegurl";
/** Seconds of video that are kept after and before the present position. */
const [AHEAD, BEHIND] = [30, 30];
const LOOK_SECONDS = 0.25;
/** Times that a request is repeated when the connection is lost. */
const TRIES = 5;

/** @typedef {{url: string, start: number, end: number}} Part */
/** @typedef {{init: string, parts: Part[], target: number, isEnded: boolean}} Playlist  `target`: seconds */

/** @param {string} text @param {string} base  Its own address. @returns {Playlist} */
export function parsePlaylist(text, base) {
  const playlist = /** @type {Playlist} */ ({ init: "", parts: [], target: 1, isEnded: false });
  let [start, length] = [0, 0];
  for (const line of text.split("\n")) {
    const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
    if (name === "#EXT-X-MAP") playlist.init = new URL(value.slice(5, -1), base).href;
    else if (name === "#EXT-X-TARGETDURATION") playlist.target = Number(value);
    else if (name === "#EXTINF") length = Number.parseFloat(value);
    else if (line === "#EXT-X-ENDLIST") playlist.isEnded = true;
    else if (line && !line.startsWith("#")) {
      playlist.parts.push({ url: new URL(line, base).href, start, end: start + length });
      start += length;
    }
  }
  return playlist;
}

/** The media type of what follows an init segment, with its codecs (RFC 6381). @param {Uint8Array} init */
export function mediaType(init) {
  const text = String.fromCharCode(...init);
  const hex = (/** @type {number} */ value) => value.toString(16).padStart(2, "0").toUpperCase();
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  /** The content of the box of that kind. @param {string} kind */
  const box = (kind) => (text.includes(kind) ? init.subarray(text.indexOf(kind) + 4) : undefined);
  const codecs = [];
  const [avc, hevc, av1, vp9] = [box("avcC"), box("hvcC"), box("av1C"), box("vpcC")];
  if (avc) codecs.push(`avc1.${hex(avc[1])}${hex(avc[2])}${hex(avc[3])}`);
  if (hevc) {
    const compatible = [...hevc.subarray(2, 6)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
    const reversed = Number.parseInt([...compatible].reverse().join(""), 2).toString(16).toUpperCase();
    const constraints = [...hevc.subarray(6, 12)];
    while (constraints.at(-1) === 0) constraints.pop();
    const level = `${hevc[1] & 0x20 ? "H" : "L"}${hevc[12]}`;
    codecs.push(["hvc1", hevc[1] & 0x1f, reversed, level, ...constraints.map(hex)].join("."));
  }
  if (av1) {
    const depth = av1[2] & 0x40 ? (av1[2] & 0x20 ? 12 : 10) : 8;
    codecs.push(`av01.${av1[1] >> 5}.${two(av1[1] & 0x1f)}${av1[2] & 0x80 ? "H" : "M"}.${two(depth)}`);
  }
  if (vp9) codecs.push(`vp09.${two(vp9[4])}.${two(vp9[5])}.${two(vp9[6] >> 4)}`);
  if (text.includes("mp4a")) codecs.push("mp4a.40.2");
  return `video/mp4; codecs="${codecs.join(",")}"`;
}

/** Plays the playlist in the element until `signal` is aborted. Rejects with a sentence for the user.
 * @param {HTMLVideoElement} video @param {string} url @param {AbortSignal} signal */
export async function playPlaylist(video, url, signal) {
  if (!window.MediaSource) {
    if (!video.canPlayType(TYPE)) throw new Error("This browser cannot play a video that grows.");
    video.src = url;
    return;
  }
  const fetched = async (/** @type {string} */ address) => {
    for (let tried = 1; ; tried++) {
      const answer = await fetch(address, { signal, cache: "default" }).catch((error) => {
        if (signal.aborted || tried === TRIES) throw error;
      });
      if (answer?.ok) return answer;
      if (answer && ![429, 503].includes(answer.status)) {
        const told = await answer.json().catch(() => ({}));
        throw new Error(told.errors?.[0]?.message ?? `The server answered ${answer.status}.`);
      }
      await pause(tried, signal);
    }
  };
  const read = async () => {
    const answer = await fetched(url);
    return { ...parsePlaylist(await answer.text(), answer.url), at: performance.now() };
  };
  const bytes = async (/** @type {string} */ address) => new Uint8Array(await (await fetched(address)).arrayBuffer());

  let playlist = await read();
  const init = await bytes(playlist.init);
  const type = mediaType(init);
  if (!MediaSource.isTypeSupported(type)) throw new Error("This browser cannot play the result's codec.");
  const source = new MediaSource();
  const address = URL.createObjectURL(source);
  const opened = once(source, "sourceopen", signal);
  video.src = address;
  await opened;
  URL.revokeObjectURL(address);
  const buffer = source.addSourceBuffer(type);
  const work = async (/** @type {() => void} */ begin) => {
    const done = once(buffer, "updateend", signal);
    begin();
    await done;
  };
  await work(() => buffer.appendBuffer(init));
  while (!signal.aborted) {
    if (!playlist.isEnded && performance.now() - playlist.at > playlist.target * 1000) playlist = await read();
    const { parts, isEnded } = playlist;
    const end = parts.at(-1)?.end ?? 0;
    if (source.readyState === "open" && !(source.duration >= end)) source.duration = end;
    const at = video.currentTime;
    const next = parts.find((one) => one.end > at && one.start < at + AHEAD && !holds(buffer, (one.start + one.end) / 2));
    if (next) {
      const content = await bytes(next.url);
      if (buffer.buffered.length && buffer.buffered.start(0) < video.currentTime - BEHIND) {
        await work(() => buffer.remove(0, video.currentTime - BEHIND));
      }
      await work(() => buffer.appendBuffer(content));
    } else {
      if (isEnded && source.readyState === "open" && holds(buffer, end - 1e-3)) source.endOfStream();
      await pause(LOOK_SECONDS, signal);
    }
  }
}

/** @param {SourceBuffer} buffer @param {number} time */
function holds(buffer, time) {
  for (let at = 0; at < buffer.buffered.length; at++) {
    if (buffer.buffered.start(at) <= time && time < buffer.buffered.end(at)) return true;
  }
  return false;
}

/** @param {EventTarget} target @param {string} name @param {AbortSignal} signal @returns {Promise<void>} */
function once(target, name, signal) {
  return new Promise((resolve, reject) => {
    target.addEventListener(name, () => resolve(), { once: true });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

// Before and after on top of each other, divided by a slider, with zoom and pan. Pictures or videos in step.

import { html, useCallback, useEffect, useRef, useState } from "../preact.js";
import { count, share, span } from "../format.js";
import { playPlaylist } from "./playlist.js";
import { Still } from "./still.js";

const LARGEST_ZOOM = 8;
/** Seconds that the two videos may be apart while they play; when they stand still they show the same moment. */
const LARGEST_DRIFT = 0.05;

/** @typedef {{at: number, setAt: (at: number) => void, style: Record<string, string>, on: Record<string, any>, zoom: number,
 *  setZoom: (zoom: number) => void}} Divided */

/** Where a stage is divided, its zoom and pan; several stages may share them. @returns {Divided} */
export function useDivided() {
  const [at, setAt] = useState(50);
  const [view, setView] = useState({ zoom: 1, x: 0, y: 0 });
  const drag = useRef(/** @type {{x: number, y: number} | null} */ (null));
  const bounded = (/** @type {{zoom: number, x: number, y: number}} */ { zoom, x, y }) => {
    const most = (1 - 1 / zoom) * 50;
    const within = (/** @type {number} */ value) => Math.min(most, Math.max(-most, value));
    return { zoom, x: within(x), y: within(y) };
  };
  const setZoom = (/** @type {number} */ zoom) =>
    setView((now) => bounded({ ...now, zoom: Math.min(LARGEST_ZOOM, Math.max(1, zoom)) }));
  const on = {
    onWheel: (/** @type {WheelEvent} */ event) => {
      if (!event.ctrlKey && view.zoom === 1 && event.deltaY > 0) return;
      event.preventDefault();
      setZoom(view.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    },
    onPointerDown: (/** @type {PointerEvent} */ event) => {
      if (view.zoom === 1) return;
      drag.current = { x: event.clientX, y: event.clientY };
      /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
    },
    onPointerMove: (/** @type {PointerEvent} */ event) => {
      if (!drag.current) return;
      const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
      const moved = { x: event.clientX - drag.current.x, y: event.clientY - drag.current.y };
      drag.current = { x: event.clientX, y: event.clientY };
      setView((now) => bounded({
        zoom: now.zoom,
        x: now.x + (moved.x / box.width / now.zoom) * 100,
        y: now.y + (moved.y / box.height / now.zoom) * 100,
      }));
    },
    onPointerUp: () => { drag.current = null; },
  };
  return { at, setAt, style: { transform: `scale(${view.zoom}) translate(${view.x}%, ${view.y}%)` }, on, zoom: view.zoom, setZoom };
}

/** The slider that divides the picture, and the zoom. @param {{of: Divided}} properties */
function Divider({ of: { at, setAt, zoom, setZoom } }) {
  return html`<div class="row divider">
    <span aria-hidden="true">before</span>
    <input type="range" class="grow" min="0" max="100" step="0.5" value=${at} aria-label="Border between before and after"
      onInput=${(/** @type {any} */ event) => setAt(Number(event.target.value))} />
    <span aria-hidden="true">after</span>
    <span class="zoom"><button class="quiet" aria-label="Zoom out" disabled=${zoom === 1} onClick=${() => setZoom(zoom / 1.5)}>−</button>
    <output aria-label="Zoom">${share(zoom)}</output>
    <button class="quiet" aria-label="Zoom in" disabled=${zoom >= LARGEST_ZOOM} onClick=${() => setZoom(zoom * 1.5)}>+</button></span>
  </div>`;
}

/** Two pictures of the same part of a frame. @param {{before: string, after: string, label: string, divided: Divided}} properties */
export function ComparePictures({ before, after, label, divided }) {
  const { at, style, on } = divided;
  return html`<figure class="compare" aria-label=${label}>
    <div class="stage" ...${on}>
      <img src=${after} alt=${`After: ${label}`} style=${style} draggable="false" />
      <div class="over" style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }}>
        <img src=${before} alt=${`Before: ${label}`} style=${style} draggable="false" />
      </div>
      <div class="border" style=${{ left: `${at}%` }}></div>
    </div>
    <${Divider} of=${divided} />
  </figure>`;
}

/** Two videos in step: the output leads, the input follows.
 * @param {{before: string, after: string, rate: number, start: number, label: string, fileId?: string, beginsAt?: number,
 *          grows?: boolean}} properties
 *   `rate`: of the output, per second; `start`: where it begins in the input, in seconds; `fileId`: of the input, if its
 *   frames may be asked for where it cannot be played; `beginsAt`: when its first one is shown, in seconds; `grows`:
 *   whether `after` is a playlist of what is finished */
export function CompareVideos({ before, after, rate, start, label, fileId, beginsAt = 0, grows = false }) {
  const divided = useDivided();
  const { at, style, on } = divided;
  const leader = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const follower = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const [state, setState] = useState({ time: 0, duration: 0, playing: false, sound: "after", missing: "" });
  const [isPlain, setPlain] = useState(true);
  const change = useCallback((/** @type {Partial<typeof state>} */ part) => setState((now) => ({ ...now, ...part })), []);

  /** The original cannot be played: its sound cannot be heard either. */
  const lack = () => {
    setPlain(false);
    change({ sound: "after", missing: fileId
      ? "This browser cannot play the original. Where the video stands still you see its frame, which the server reads."
      : "This browser cannot play the original, so only the result is shown." });
    seek(leader.current?.currentTime ?? 0);
  };

  /** Brings both to the middle of a frame, where no rounding shows its neighbour. */
  const seek = (/** @type {number} */ time) => {
    if (!leader.current) return;
    const frame = Math.max(0, Math.floor(time * rate + 1e-6));
    const middle = Math.min((frame + 0.5) / rate, Math.max(0, (leader.current.duration || 0) - 1e-3));
    leader.current.currentTime = middle;
    if (follower.current) follower.current.currentTime = start + middle;
    change({ time: middle });
  };
  const play = async () => {
    if (!leader.current) return;
    if (leader.current.paused) {
      if (leader.current.ended) seek(0);
      await Promise.allSettled([leader.current.play(), follower.current?.play()]);
    } else {
      leader.current.pause();
      follower.current?.pause();
      seek(leader.current.currentTime);
    }
  };
  useEffect(() => {
    let frame = 0;
    const step = () => {
      const [one, two] = [leader.current, follower.current];
      if (one && !one.paused) {
        change({ time: one.currentTime });
        if (two && two.readyState > 1 && Math.abs(two.currentTime - start - one.currentTime) > LARGEST_DRIFT) {
          two.currentTime = start + one.currentTime;
        }
      }
      frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [start]);
  useEffect(() => {
    if (leader.current) leader.current.muted = state.sound !== "after";
    if (follower.current) follower.current.muted = state.sound !== "before";
  }, [state.sound]);
  useEffect(() => {
    if (!grows || !leader.current) return undefined;
    const control = new AbortController();
    playPlaylist(leader.current, after, control.signal).catch((error) => {
      if (!control.signal.aborted) change({ missing: error.message });
    });
    return () => control.abort();
  }, [grows, after]);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const steps = /** @type {Record<string, () => void>} */ ({
      " ": play, k: play, ",": () => seek(state.time - 1 / rate), ".": () => seek(state.time + 1 / rate),
    });
    if (!steps[event.key] || /** @type {Element} */ (event.target).tagName === "BUTTON") return;
    event.preventDefault();
    steps[event.key]();
  };
  return html`<figure class="compare" aria-label=${label} onKeyDown=${keys}>
    <div class="stage" tabindex="0" aria-label="Space plays, comma and full stop go one frame back and on" role="group" ...${on}>
      <video ref=${leader} src=${grows ? undefined : after} style=${style} playsinline preload="auto" aria-label="After"
        onDurationChange=${(/** @type {any} */ { target }) => { if (Number.isFinite(target.duration)) change({ duration: target.duration }); }}
        onWaiting=${() => follower.current?.pause()}
        onPlaying=${() => { if (leader.current && !leader.current.paused) follower.current?.play().catch(() => {}); }}
        onPlay=${() => change({ playing: true })} onPause=${() => change({ playing: false })}
        onError=${() => change({ missing: "This browser cannot play the result. Download it." })}></video>
      <div class="over" style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }}>
        ${isPlain ? html`<video ref=${follower} src=${before} style=${style} playsinline muted preload="auto" aria-label="Before"
            onLoadedMetadata=${(/** @type {any} */ event) => (event.target.videoWidth ? seek(leader.current?.currentTime ?? 0) : lack())}
            onError=${lack}></video>`
    : fileId && html`<${Still} fileId=${fileId} at=${Math.max(0, start + state.time - beginsAt)} label="Before" style=${style} wait=${state.playing} />`}
      </div>
      <div class="border" style=${{ left: `${at}%` }}></div>
    </div>
    ${state.missing && html`<p class="notice">${state.missing}</p>`}
    <div class="row player">
      <button onClick=${play} aria-label=${state.playing ? "Pause" : "Play"}>${state.playing ? "❚❚" : "▶"}</button>
      <button class="quiet" aria-label="One frame back" onClick=${() => seek(state.time - 1 / rate)}>‹</button>
      <button class="quiet" aria-label="One frame on" onClick=${() => seek(state.time + 1 / rate)}>›</button>
      <input type="range" class="grow" min="0" max=${state.duration || 1} step="any" value=${state.time}
        aria-label="Position" aria-valuetext=${span(state.time)}
        onInput=${(/** @type {any} */ event) => seek(Number(event.target.value))} />
      <output aria-label="Time">${span(state.time)}${state.duration > 0 && ` / ${span(state.duration)}`}, frame ${count(Math.floor(state.time * rate + 1e-6) + 1)}</output>
      <label>Sound <select value=${state.sound} onChange=${(/** @type {any} */ event) => change({ sound: event.target.value })}>
        <option value="after">after</option>${isPlain && html`<option value="before">before</option>`}<option value="off">off</option>
      </select></label>
    </div>
    <${Divider} of=${divided} />
  </figure>`;
}

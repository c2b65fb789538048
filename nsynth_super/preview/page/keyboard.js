// The keys on the page, and those of the computer keyboard.

import { noteName } from "page/device.js";

const WHITES = [0, 2, 4, 5, 7, 9, 11];
const SHOWN = 25; // keys on the page: two octaves and the next C
const CODES = [
  ["KeyZ", "KeyS", "KeyX", "KeyD", "KeyC", "KeyV", "KeyG", "KeyB", "KeyH", "KeyN", "KeyJ", "KeyM"],
  ["KeyQ", "Digit2", "KeyW", "Digit3", "KeyE", "KeyR", "Digit5", "KeyT", "Digit6", "KeyY", "Digit7", "KeyU", "KeyI", "Digit9", "KeyO", "Digit0", "KeyP"],
];
const OFFSETS = new Map(
  CODES.flatMap((row, octave) => row.map((code, semitone) => [code, 12 * octave + semitone])),
);
export const VELOCITY = 100;

export class Keyboard {
  // Calls `on(note, velocity)` and `off(note)`; `hold()` returns whether keys latch.
  constructor(element, pitches, { on, off, hold }) {
    Object.assign(this, { element, pitches, on, off, hold });
    this.base = 48;
    this.down = new Map(); // by note, the set of its holders: a pointer, "focus", "latch", "midi" or a key code
    this.keys = [];
    this.current = 12;
    element.addEventListener("pointerdown", (event) => this.pointed(event));
    element.addEventListener("keydown", (event) => this.typed(event));
    element.addEventListener("keyup", (event) => {
      if ([" ", "Enter"].includes(event.key)) this.release("focus");
    });
    element.addEventListener("focusin", (event) => this.focused(event.target));
    element.addEventListener("focusout", () => this.release("focus"));
    addEventListener("keydown", (event) => this.computerKey(event));
    addEventListener("keyup", (event) => this.release(event.code));
    addEventListener("blur", () => this.releaseAll(false));
    this.build();
  }

  build() {
    this.element.replaceChildren();
    this.keys = Array.from({ length: SHOWN }, (_, i) => {
      const note = this.base + i;
      const key = document.createElement("button");
      key.type = "button";
      key.dataset.note = note;
      key.tabIndex = i === this.current ? 0 : -1;
      key.className = WHITES.includes(note % 12) ? "white" : "black";
      if (i > 12) key.classList.add("high");
      const recorded = this.pitches.includes(note);
      if (recorded) key.classList.add("recorded");
      key.setAttribute("aria-label", `${noteName(note).replace("♯", " sharp ")}, MIDI ${note}${recorded ? ", recorded" : ""}`);
      key.textContent = note % 12 === 0 ? noteName(note) : "";
      this.element.append(key);
      return key;
    });
    this.paint();
  }

  shift(octaves) {
    const base = this.base + 12 * octaves;
    if (base < 0 || base + SHOWN - 1 > 127) return;
    this.releaseAll(false);
    this.base = base;
    this.build();
  }

  press(note, holder, velocity = VELOCITY) {
    if (note < 0 || note > 127) return;
    const held = this.down.get(note);
    if (held?.has("latch")) {
      this.down.delete(note);
      this.off(note);
    } else if (held) held.add(holder);
    else {
      this.down.set(note, new Set(this.hold() ? [holder, "latch"] : [holder]));
      this.on(note, velocity);
    }
    this.paint();
  }

  release(holder, note = null) {
    for (const [each, holders] of [...this.down]) {
      if (note !== null && each !== note) continue;
      if (holders.delete(holder) && holders.size === 0) {
        this.down.delete(each);
        this.off(each);
      }
    }
    this.paint();
  }

  releaseAll(latched) {
    for (const [note, holders] of [...this.down]) {
      if (!latched && holders.has("latch")) continue;
      this.down.delete(note);
      this.off(note);
    }
    this.paint();
  }

  paint() {
    for (const key of this.keys) {
      const down = this.down.has(Number(key.dataset.note));
      key.classList.toggle("down", down);
    }
  }

  pointed(event) {
    const key = event.target.closest("[data-note]");
    if (!key || event.button > 0) return;
    event.preventDefault();
    const holder = `pointer ${event.pointerId}`;
    let note = Number(key.dataset.note);
    this.press(note, holder);
    this.focus(this.keys.indexOf(key));
    const slide = (moved) => {
      if (moved.pointerId !== event.pointerId || this.hold()) return;
      const under = document.elementFromPoint(moved.clientX, moved.clientY)?.closest("[data-note]");
      if (!under || Number(under.dataset.note) === note) return;
      this.release(holder);
      note = Number(under.dataset.note);
      this.press(note, holder);
    };
    const end = (ended) => {
      if (ended.pointerId !== event.pointerId) return;
      this.release(holder);
      ["pointerup", "pointercancel"].forEach((kind) => removeEventListener(kind, end));
      removeEventListener("pointermove", slide);
    };
    ["pointerup", "pointercancel"].forEach((kind) => addEventListener(kind, end));
    addEventListener("pointermove", slide);
  }

  focus(index) {
    this.keys[index].focus({ preventScroll: true });
  }

  // Roving tabindex: Tab reaches the key that had the focus last.
  focused(key) {
    this.keys[this.current].tabIndex = -1;
    this.current = this.keys.indexOf(key);
    key.tabIndex = 0;
  }

  typed(event) {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -SHOWN, End: SHOWN }[event.key];
    if (steps) {
      event.preventDefault();
      const seen = this.keys.filter((key) => key.offsetWidth);
      this.focus(Math.min(Math.max(this.current + steps, 0), seen.length - 1));
    } else if ([" ", "Enter"].includes(event.key)) {
      event.preventDefault();
      if (!event.repeat) this.press(Number(this.keys[this.current].dataset.note), "focus");
    }
  }

  computerKey(event) {
    const busy = event.ctrlKey || event.altKey || event.metaKey || event.repeat;
    if (busy || event.target.closest?.("select, input[type=text], input[type=number]")) return;
    if (event.code === "Minus") this.shift(-1);
    else if (event.code === "Equal") this.shift(1);
    else if (OFFSETS.has(event.code)) this.press(this.base + OFFSETS.get(event.code), event.code);
  }
}

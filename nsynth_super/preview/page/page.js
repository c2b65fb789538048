// The page: what is chosen (pad, cell, pitch), and how it is shown.

import { Corners } from "page/corners.js";
import { TOUCH, cellAlong, cellOf, frequencyOf, loopOf, nearest, noteName } from "page/device.js";
import { $, debounce, make, tell } from "page/elements.js";
import { buildKeys } from "page/keys.js";
import { buildKnobs, buildLoop } from "page/knobs.js";
import { Meter, Notes } from "page/notes.js";
import { Recordings } from "page/recordings.js";
import { Screen } from "page/screen.js";
import { openSource } from "page/source.js";
import { clear, draw } from "page/spectrogram.js";
import { Synth } from "page/synth.js";

const POLL = 3000; // milliseconds between two requests for the progress
const SETTLED = 120; // milliseconds after the last move

class Page {
  constructor(source) {
    this.source = source;
    this.pack = source.pack;
    this.touch = [5, 5];
    this.made = "";
    this.note = this.pack.pitches[nearest(this.pack.pitches, 60)];
    this.synth = new Synth(this.pack);
    this.screen = new Screen($("screen"), this.pack);
    this.meter = new Meter(this.synth);
    this.settle = debounce(SETTLED, () => this.settled());
  }

  get pad() {
    return this.corners.pad;
  }

  get cell() {
    return cellOf(this.touch, this.pack.resolution);
  }

  row(note, cell = this.cell) {
    return cell * this.pack.pitches.length + nearest(this.pack.pitches, note);
  }

  isMade(row) {
    return this.made[row] === "1";
  }

  async begin() {
    const { title, resolution } = this.pack;
    const sounding = () => this.showSounding();
    document.title = `${title} · nsynth-super`;
    $("title").textContent = title;
    $("pad").setAttribute("aria-label", `Pad, ${resolution} by ${resolution} cells`);
    this.corners = new Corners(this.pack, () => this.choose());
    this.buildPad();
    this.notes = new Notes(this, sounding);
    this.keyboard = buildKeys(this.pack, this.synth, this.note, this.notes);
    buildKnobs(this.synth, this.pack);
    buildLoop(this.synth, this.pack, this.settle);
    this.recordings = new Recordings(this, sounding);
    this.recordings.pitch = this.note;
    $("main").hidden = false;
    await this.choose();
  }

  buildPad() {
    const pad = $("pad");
    const drag = (event) => this.move(this.screen.touched(event.clientX, event.clientY));
    pad.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      pad.setPointerCapture(event.pointerId);
      drag(event);
    });
    pad.addEventListener("pointermove", (event) => {
      if (pad.hasPointerCapture(event.pointerId)) drag(event);
    });
    pad.addEventListener("keydown", (event) => {
      const [x, y] = this.touch;
      const to = {
        ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1],
        Home: [0, y], End: [TOUCH - 1, y], PageUp: [x, 0], PageDown: [x, TOUCH - 1],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      this.move(to.map((position) => Math.min(Math.max(position, 0), TOUCH - 1)));
    });
  }

  // Another instrument in a corner selects another pad, and silences the synth.
  async choose() {
    this.keyboard.releaseAll(true);
    this.synth.silence();
    this.corners.show();
    this.made = "";
    this.recordings.list();
    await this.look();
    this.moved();
  }

  // Ask for the progress, and again until the pack is complete.
  async look() {
    clearTimeout(this.timer);
    const pad = this.pad;
    let found = null;
    try {
      found = await this.source.progress(pad);
    } catch (error) {
      tell(error.message);
    }
    if (pad !== this.pad) return;
    if (found && found.identity !== this.pack.identity) {
      const again = make("button", { type: "button", textContent: "Load it" });
      again.addEventListener("click", () => location.reload());
      tell("The pack has changed. ", again);
      return;
    }
    if (found) {
      tell("");
      const news = found.made !== this.made;
      this.made = found.made;
      this.showProgress(found);
      if (news) this.moved();
    }
    if (!found?.final) this.timer = setTimeout(() => this.look(), POLL);
  }

  showProgress({ final, clips, total }) {
    $("progress").hidden = final;
    if (final) return;
    $("progress-bar").max = total;
    $("progress-bar").value = clips;
    $("progress-text").textContent = clips < total
      ? `${Math.floor(clips).toLocaleString("en")} of ${total.toLocaleString("en")} clips generated; grey cells are still to come`
      : "All clips are generated; `nsynth-super pads` writes the pads";
  }

  // How much of each cell is made, from 0 to 1.
  states() {
    const pitches = this.pack.pitches.length;
    return this.pack.weights.map((_, cell) => {
      const rows = this.made.slice(cell * pitches, (cell + 1) * pitches);
      return [...rows].filter((row) => row === "1").length / pitches;
    });
  }

  move(touch) {
    if (touch.every((position, axis) => position === this.touch[axis])) return;
    const before = this.cell;
    this.touch = touch;
    this.moved();
    if (this.cell !== before && $("follow").checked) this.notes.follow();
  }

  moved() {
    this.show();
    this.settle();
  }

  show() {
    this.screen.show(this.touch, this.states(), this.notes.sounding);
  }

  showSounding() {
    this.show();
    this.meter.start();
  }

  // A note was played; the table and the spectrogram follow it to another pitch.
  played(note, pitch) {
    if (pitch === this.pack.pitches[nearest(this.pack.pitches, this.note)]) return;
    this.note = note;
    this.recordings.pitch = pitch;
    this.recordings.list();
    this.settle();
  }

  // Show what is too slow to update while the finger moves.
  async settled() {
    const { resolution } = this.pack;
    const [column, row] = this.touch.map((position) => cellAlong(position, resolution) + 1);
    const wanted = this.row(this.note);
    const absent = this.made && !this.isMade(wanted) ? " Not generated yet." : "";
    $("mix").textContent = `${this.corners.mix(this.cell)} — column ${column}, row ${row} of ${resolution}.${absent}`;
    const canvas = $("spectrogram");
    if (!this.isMade(wanted)) {
      clear(canvas);
      this.describe("Not generated yet");
      return;
    }
    try {
      const pad = this.pad;
      const sound = await this.source.row(pad, wanted);
      if (pad !== this.pad || wanted !== this.row(this.note)) return;
      const pitch = this.pack.pitches[nearest(this.pack.pitches, this.note)];
      const words = draw(canvas, sound, this.pack.sampleRate, loopOf(this.synth.loop, sound.length));
      this.describe(`${noteName(pitch)} (${Math.round(frequencyOf(pitch))} Hz): ${words}`);
      this.fetchAhead(pad, this.cell);
    } catch (error) {
      tell(error.message);
    }
  }

  // Describe the spectrogram, for the eye and for a screen reader.
  describe(words) {
    $("spectrogram").setAttribute("aria-label", `Spectrogram. ${words}`);
    $("spectrogram-words").textContent = words;
  }

  // Fetch the other notes of this cell so that no key waits, nearest to the last one first.
  async fetchAhead(pad, cell) {
    const { pitches } = this.pack;
    const order = [...pitches].sort((a, b) => Math.abs(a - this.note) - Math.abs(b - this.note));
    for (const pitch of order) {
      if (pad !== this.pad || cell !== this.cell) return;
      const row = this.row(pitch, cell);
      if (this.isMade(row)) await this.source.row(pad, row);
    }
  }
}

async function begin() {
  try {
    await new Page(await openSource()).begin();
  } catch (error) {
    tell(error.message);
    throw error;
  }
}

begin();

// The notes that are held: fetches, starts, moves and releases their voices.

import { nearest, noteName } from "page/device.js";
import { $, tell } from "page/elements.js";

export class Notes {
  // `page` tells what is chosen; `changed()` is called when a note starts or ends.
  constructor(page, changed) {
    Object.assign(this, { page, changed });
    this.held = new Map(); // by note: { voice }, which is null while its sound is fetched
  }

  get sounding() {
    return this.held.size > 0;
  }

  async on(note, velocity) {
    const { page } = this;
    page.synth.wake();
    const row = page.row(note);
    const pitch = page.pack.pitches[nearest(page.pack.pitches, note)];
    const moved = note - pitch;
    const how = moved ? `the sample at ${noteName(pitch)} shifted by ${moved > 0 ? "+" : "−"}${Math.abs(moved)} semitones` : "its own sample";
    const made = page.isMade(row);
    $("heard").textContent = `${noteName(note)} (MIDI ${note}): ${made ? how : "not generated yet in this cell"}.`;
    page.played(note, pitch);
    if (!made) return;
    const ticket = { voice: null };
    this.held.set(note, ticket);
    try {
      const sound = await page.source.row(page.pad, row);
      if (this.held.get(note) !== ticket) return;
      ticket.voice = page.synth.on(note, velocity, sound);
      this.changed();
    } catch (error) {
      this.held.delete(note);
      tell(error.message);
    }
  }

  off(note) {
    const ticket = this.held.get(note);
    this.held.delete(note);
    ticket?.voice?.release();
    this.changed();
  }

  // Move every held note to the cell under the finger.
  async follow() {
    const { page } = this;
    const cell = page.cell;
    for (const [note, { voice }] of this.held) {
      const row = page.row(note);
      if (!voice || !page.isMade(row)) continue;
      const sound = await page.source.row(page.pad, row);
      if (cell !== page.cell) return;
      if (voice.state === "held") voice.move(sound);
    }
  }
}

// Measures the level while there is sound.
export class Meter {
  constructor(synth) {
    this.synth = synth;
    this.running = false;
  }

  start() {
    if (this.running) return;
    let clipped = 0;
    const measure = (now) => {
      const peak = this.synth.peak();
      $("meter").value = peak;
      if (peak > 1) clipped = now;
      $("clips").hidden = !clipped || now - clipped > 1500;
      this.running = this.synth.voices.length > 0 || peak > 0.001 || !$("clips").hidden;
      if (this.running) requestAnimationFrame(measure);
      else $("meter").value = 0;
    };
    this.running = true;
    requestAnimationFrame(measure);
  }
}

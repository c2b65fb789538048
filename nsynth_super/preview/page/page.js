// The page: what is touched, chosen and turned, and what is to be seen and heard of it.

import { TOUCH, cellAlong, cellOf, frequencyOf, loopOf, nearest, noteName, times } from "./device.js";
import { Keyboard } from "./keyboard.js";
import { listen } from "./midi.js";
import { Screen } from "./screen.js";
import { openSource } from "./source.js";
import { clear, draw } from "./spectrogram.js";
import { Synth } from "./synth.js";

const POLL = 3000; // milliseconds between two looks at how far the pack is
const SETTLED = 120; // milliseconds after the last move
const AS_LOUD = 8231 / 32767; // the peak of every sound in a pad

const $ = (id) => document.getElementById(id);

function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
}

function once(wait, action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}

function tell(words, ...more) {
  $("message").replaceChildren(words, ...more);
  $("message").hidden = !words;
}

class Page {
  constructor(source) {
    this.source = source;
    this.pack = source.pack;
    this.touch = [5, 5];
    this.choices = [0, 0, 0, 0];
    this.made = "";
    this.note = this.pack.pitches[nearest(this.pack.pitches, 60)];
    this.sounding = new Map(); // by note: its voice, or null while its sound is fetched
    this.synth = new Synth(this.pack);
    this.screen = new Screen($("screen"), this.pack);
    this.settle = once(SETTLED, () => this.settled());
  }

  get pad() {
    return this.pack.corners.map((corner, i) => corner.instruments[this.choices[i]].name).join("_");
  }

  get cell() {
    return cellOf(this.touch, this.pack.resolution);
  }

  row(note, cell = this.cell) {
    return cell * this.pack.pitches.length + nearest(this.pack.pitches, note);
  }

  async begin() {
    const { title, resolution, pitches } = this.pack;
    document.title = `${title} · nsynth-super`;
    $("title").textContent = title;
    $("pad").setAttribute("aria-label", `Pad, ${resolution} by ${resolution} cells`);
    this.buildCorners();
    this.buildPad();
    this.buildKeys();
    this.buildKnobs();
    this.buildLoop();
    for (const pitch of [...pitches].sort((a, b) => a - b)) {
      $("pitch").append(make("option", { value: pitch, textContent: `${noteName(pitch)} (${pitch})` }));
    }
    $("pitch").value = this.note;
    $("pitch").addEventListener("change", () => this.listNotes());
    $("main").hidden = false;
    await this.choose();
  }

  // Four encoders: each turns through its corner's instruments.
  buildCorners() {
    this.pack.corners.forEach(({ corner, instruments }, i) => {
      const where = { NW: "North-west", NE: "North-east", SW: "South-west", SE: "South-east" }[corner];
      const select = make("select", { id: `choice-${corner}`, ariaLabel: `${where} instrument` });
      instruments.forEach(({ name }, index) => select.append(make("option", { value: index, textContent: name })));
      const turn = (by, sign, words) => {
        const button = make("button", { type: "button", textContent: sign, ariaLabel: `${where}: ${words} instrument` });
        button.disabled = instruments.length < 2;
        button.addEventListener("click", () => {
          this.choices[i] = (this.choices[i] + by + instruments.length) % instruments.length;
          this.choose();
        });
        return button;
      };
      select.addEventListener("change", () => {
        this.choices[i] = Number(select.value);
        this.choose();
      });
      $("corners").append(
        make("fieldset", { className: `corner ${corner.toLowerCase()}` },
          make("legend", { textContent: where }),
          make("span", { className: "short", id: `short-${corner}`, ariaHidden: "true" }),
          make("small", { id: `display-${corner}` }),
          make("div", { className: "choice" }, turn(-1, "‹", "previous"), select, turn(1, "›", "next"))),
      );
    });
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

  buildKeys() {
    this.keyboard = new Keyboard($("keys"), this.pack.pitches, {
      on: (note, velocity) => this.on(note, velocity),
      off: (note) => this.off(note),
      hold: () => $("hold").checked,
    });
    const octave = () => {
      $("octave").textContent = `from ${noteName(this.keyboard.base)}`;
    };
    const middle = Math.round((this.note - 12) / 12) * 12;
    this.keyboard.shift((Math.min(Math.max(middle, 0), 96) - this.keyboard.base) / 12);
    octave();
    $("lower").addEventListener("click", () => this.keyboard.shift(-1));
    $("higher").addEventListener("click", () => this.keyboard.shift(1));
    new MutationObserver(octave).observe($("keys"), { childList: true });
    $("hold").addEventListener("change", () => {
      if (!$("hold").checked) this.keyboard.release("latch");
    });
    $("midi").addEventListener("click", () => this.connect());
  }

  async connect() {
    this.synth.wake();
    if (!navigator.requestMIDIAccess) {
      $("heard").textContent = "This browser has no Web MIDI: try Chrome, Edge or Firefox.";
      return;
    }
    if (this.listening) return; // to every keyboard that is there or comes
    this.listening = true;
    try {
      await listen(
        {
          on: (note, velocity) => this.keyboard.press(note, "midi", velocity),
          off: (note) => this.keyboard.release("midi", note),
        },
        (inputs) => {
          $("midi").textContent = inputs.length ? `MIDI: ${inputs.join(", ")}` : "MIDI: no keyboard yet";
        },
      );
    } catch (error) {
      this.listening = false;
      $("heard").textContent = `The browser does not give MIDI to this page (${error.message}).`;
    }
  }

  slider(parent, id, label, value, words, changed) {
    const input = make("input", { type: "range", id, min: 0, max: 1, step: 0.01, value });
    const output = make("output");
    output.htmlFor = id;
    const show = () => {
      output.textContent = words();
      input.setAttribute("aria-valuetext", words());
    };
    input.addEventListener("input", () => {
      changed(Number(input.value));
      show();
    });
    const name = make("label", { textContent: label, htmlFor: id });
    parent.append(make("div", { className: "knob" }, name, input, output));
    show();
    return (now) => {
      input.value = now;
      show();
    };
  }

  buildKnobs() {
    const { knobs } = this.synth;
    const seconds = (value) => `${value < 0.1 ? value.toFixed(3) : value.toFixed(2)} s`;
    const said = {
      position: () => seconds((knobs.position * this.pack.length) / this.pack.sampleRate),
      attack: () => seconds(times(knobs, this.pack).attack),
      decay: () => seconds(times(knobs, this.pack).decay),
      sustain: () => `${Math.round(knobs.sustain * 100)} %`,
      release: () => seconds(times(knobs, this.pack).release),
    };
    for (const [knob, words] of Object.entries(said)) {
      const label = knob[0].toUpperCase() + knob.slice(1);
      this.slider($("knobs"), knob, label, knobs[knob], words, (value) => {
        knobs[knob] = value;
      });
    }
    this.slider($("knobs"), "volume", "Volume", this.synth.level, () => `${Math.round(this.synth.level * 100)} %`, (value) => {
      this.synth.volume = value;
    });
  }

  buildLoop() {
    const { loop } = this.synth;
    const changed = () => {
      $("loop-words").textContent =
        `"looping": ${loop.looping}, "loopStart": ${+loop.loopStart.toFixed(3)}, "loopEnd": ${+loop.loopEnd.toFixed(3)}`;
      this.settle();
    };
    const percent = (key) => () => `${Math.round(loop[key] * 100)} %`;
    const sliders = ["loopStart", "loopEnd"].map((key) =>
      this.slider($("loop-points"), key, key === "loopStart" ? "From" : "To", loop[key], percent(key), (value) => {
        loop[key] = value;
        changed();
      }));
    const show = () => {
      $("looping").checked = loop.looping;
      sliders[0](loop.loopStart);
      sliders[1](loop.loopEnd);
      changed();
    };
    $("looping").addEventListener("change", () => {
      loop.looping = $("looping").checked;
      changed();
    });
    $("loop-reset").addEventListener("click", () => {
      const { looping, loopStart, loopEnd } = this.pack;
      Object.assign(loop, { looping, loopStart, loopEnd });
      show();
    });
    show();
  }

  // Another instrument in a corner: another pad. The instrument falls silent, too.
  async choose() {
    this.keyboard.releaseAll(true);
    this.synth.silence();
    this.pack.corners.forEach(({ corner, instruments }, i) => {
      const { abbr, display } = instruments[this.choices[i]];
      $(`short-${corner}`).textContent = abbr;
      $(`display-${corner}`).textContent = display;
      $(`choice-${corner}`).value = this.choices[i];
    });
    this.made = "";
    this.listNotes();
    await this.look();
    this.moved();
  }

  // Ask how far the pack is, and again until it is whole.
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
    if (!found?.whole) this.timer = setTimeout(() => this.look(), POLL);
  }

  showProgress({ whole, clips, total }) {
    $("progress").hidden = whole;
    if (whole) return;
    $("progress-bar").max = total;
    $("progress-bar").value = clips;
    $("progress-text").textContent = clips < total
      ? `${Math.floor(clips).toLocaleString("en")} of ${total.toLocaleString("en")} clips made: grey is still to come`
      : "All clips are made; `nsynth-super pads` writes the pads";
  }

  states() {
    const pitches = this.pack.pitches.length;
    return this.pack.weights.map((_, cell) => {
      const rows = this.made.slice(cell * pitches, (cell + 1) * pitches);
      return [...rows].filter((row) => row === "1").length / pitches;
    });
  }

  is(row) {
    return this.made[row] === "1";
  }

  move(touch) {
    if (touch.every((position, axis) => position === this.touch[axis])) return;
    const before = this.cell;
    this.touch = touch;
    this.moved();
    if (this.cell !== before && $("follow").checked) this.follow();
  }

  moved() {
    this.screen.show(this.touch, this.states(), this.sounding.size > 0);
    this.settle();
  }

  // What is told and drawn only when the finger rests.
  async settled() {
    const { resolution } = this.pack;
    const [column, row] = this.touch.map((position) => cellAlong(position, resolution) + 1);
    const wanted = this.row(this.note);
    const absent = this.made && !this.is(wanted) ? " Not made yet." : "";
    $("mix").textContent = `${this.mixed()} — column ${column}, row ${row} of ${resolution}.${absent}`;
    const canvas = $("spectrogram");
    if (!this.is(wanted)) {
      clear(canvas);
      this.picture("Not made yet");
      return;
    }
    try {
      const pad = this.pad;
      const sound = await this.source.row(pad, wanted);
      if (pad !== this.pad || wanted !== this.row(this.note)) return;
      const pitch = this.pack.pitches[nearest(this.pack.pitches, this.note)];
      const words = draw(canvas, sound, this.pack.sampleRate, loopOf(this.synth.loop, sound.length));
      this.picture(`${noteName(pitch)} (${Math.round(frequencyOf(pitch))} Hz): ${words}`);
      this.fetchAhead(pad, this.cell);
    } catch (error) {
      tell(error.message);
    }
  }

  picture(words) {
    $("spectrogram").setAttribute("aria-label", `Spectrogram. ${words}`);
    $("spectrogram-words").textContent = words;
  }

  // The other notes of this cell, so that no key has to wait: the nearest to the last one first.
  async fetchAhead(pad, cell) {
    const { pitches } = this.pack;
    const order = [...pitches].sort((a, b) => Math.abs(a - this.note) - Math.abs(b - this.note));
    for (const pitch of order) {
      if (pad !== this.pad || cell !== this.cell) return;
      const row = this.row(pitch, cell);
      if (this.is(row)) await this.source.row(pad, row);
    }
  }

  mixed() {
    const shares = new Map();
    this.pack.weights[this.cell].forEach((weight, i) => {
      const { name } = this.pack.corners[i].instruments[this.choices[i]];
      if (weight > 0) shares.set(name, (shares.get(name) ?? 0) + weight);
    });
    return [...shares]
      .sort((a, b) => b[1] - a[1])
      .map(([name, share]) => `${Math.round(share * 100)} % ${name}`)
      .join(", ");
  }

  async on(note, velocity) {
    this.synth.wake();
    const row = this.row(note);
    const pitch = this.pack.pitches[nearest(this.pack.pitches, note)];
    const moved = note - pitch;
    const how = moved ? `the sample at ${noteName(pitch)} moved by ${moved > 0 ? "+" : "−"}${Math.abs(moved)} semitones` : "a sample of its own";
    const there = this.is(row);
    $("heard").textContent = `${noteName(note)} (MIDI ${note}): ${there ? how : "not made yet in this cell"}.`;
    if (pitch !== this.pack.pitches[nearest(this.pack.pitches, this.note)]) {
      this.note = note;
      $("pitch").value = pitch;
      this.listNotes();
      this.settle();
    }
    if (!there) return;
    const ticket = { voice: null };
    this.sounding.set(note, ticket);
    try {
      const sound = await this.source.row(this.pad, row);
      if (this.sounding.get(note) !== ticket) return;
      ticket.voice = this.synth.on(note, velocity, sound);
      this.showSounding();
    } catch (error) {
      this.sounding.delete(note);
      tell(error.message);
    }
  }

  off(note) {
    const ticket = this.sounding.get(note);
    this.sounding.delete(note);
    ticket?.voice?.release();
    this.showSounding();
  }

  async follow() {
    const cell = this.cell;
    for (const [note, { voice }] of this.sounding) {
      const row = this.row(note);
      if (!voice || !this.is(row)) continue;
      const sound = await this.source.row(this.pad, row);
      if (cell !== this.cell) return;
      if (voice.state === "held") voice.move(sound);
    }
  }

  showSounding() {
    this.screen.show(this.touch, this.states(), this.sounding.size > 0);
    if (this.metering) return;
    let clipped = 0;
    const measure = (now) => {
      const peak = this.synth.peak();
      $("meter").value = peak;
      if (peak > 1) clipped = now;
      $("clips").hidden = !clipped || now - clipped > 1500;
      this.metering = this.synth.voices.length > 0 || peak > 0.001 || !$("clips").hidden;
      if (this.metering) requestAnimationFrame(measure);
      else $("meter").value = 0;
    };
    this.metering = true;
    requestAnimationFrame(measure);
  }

  // Each corner's recording beside the same note out of the pad.
  listNotes() {
    const pitch = Number($("pitch").value);
    const last = this.pack.resolution - 1;
    const cells = [0, last, last * (last + 1), (last + 1) ** 2 - 1];
    $("notes").replaceChildren(...this.pack.corners.map(({ corner, instruments }, i) => {
      const { name } = instruments[this.choices[i]];
      const recorded = this.pack.notes[name]?.includes(pitch)
        ? make("td", {}, this.player(`Recorded`, `${name}, recorded`, async () => {
          const content = await this.source.note(name, pitch);
          return this.synth.context.decodeAudioData(content.slice(0));
        }))
        : make("td", { textContent: "no recording here" });
      if (!recorded.firstElementChild) recorded.dataset.missing = "";
      const model = this.player("Model", `${name}, as the model made it`, async () => {
        const row = this.row(pitch, cells[i]);
        if (!this.is(row)) throw new Error(`${name} at ${noteName(pitch)} is not made yet`);
        const sound = await this.source.row(this.pad, row);
        const buffer = this.synth.context.createBuffer(1, sound.length, this.pack.sampleRate);
        buffer.copyToChannel(Float32Array.from(sound, (value) => value / 32767), 0);
        return buffer;
      });
      return make("tr", {},
        make("th", { scope: "row" }, name, make("small", { textContent: corner })),
        recorded, make("td", {}, model));
    }));
  }

  player(words, label, load) {
    const button = make("button", { type: "button", textContent: `▶ ${words}`, ariaLabel: `Play ${label}` });
    button.setAttribute("aria-pressed", "false");
    let loading = false;
    button.addEventListener("click", async () => {
      this.synth.wake();
      if (loading) return; // a double click
      if (button.ariaPressed === "true") {
        this.synth.stop();
        return;
      }
      loading = true;
      try {
        const buffer = await load();
        const peak = buffer.getChannelData(0).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        this.synth.play(buffer, peak > 0 ? AS_LOUD / peak : 1, () => {
          button.ariaPressed = "false";
        });
        button.ariaPressed = "true";
        this.showSounding();
      } catch (error) {
        tell(error.message);
      } finally {
        loading = false;
      }
    });
    return button;
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

// The synth's voices: buffers computed in advance and played through Web Audio.

import { HARD_VOICES, SOFT_VOICES, envelope, levelAt, loopOf, nearest, rateOf, times, trace } from "page/device.js";

const STEAL = 0.004; // seconds of fade-out of a voice that is stolen
const GLIDE = 0.06; // seconds of crossfade from one cell to another

// The curve of a release, as the synth has it: (1 - x)².
const RELEASE = Float32Array.from({ length: 65 }, (_, i) => (1 - i / 64) ** 2);

// Start one held note in `context`, which is offline in tests.
export function voice(context, output, pack, sound, note, velocity, knobs, loop) {
  const center = pack.pitches[nearest(pack.pitches, note)];
  const speed = rateOf(note, center) * pack.sampleRate / context.sampleRate;
  const shape = envelope(knobs, pack, context.sampleRate);
  const began = context.currentTime;
  const held = context.createGain();
  const released = context.createGain();
  held.connect(released).connect(output);
  held.gain.setValueAtTime(0, began);
  shape.values.forEach((value, i) => {
    held.gain.linearRampToValueAtTime(value * velocity / 127, began + i * shape.spacing);
  });
  let playing = null;
  let state = "held";

  function play(next) {
    const offset = Math.floor(knobs.position * next.length);
    const { samples, from } = trace(next, speed, offset, loopOf(loop, next.length), context.sampleRate);
    const buffer = context.createBuffer(1, Math.max(1, samples.length), context.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    if (from !== null) {
      source.loop = true;
      source.loopStart = from / context.sampleRate;
      source.loopEnd = samples.length / context.sampleRate;
    }
    const mixed = context.createGain();
    source.connect(mixed).connect(held);
    source.start();
    const now = context.currentTime;
    if (playing) {
      mixed.gain.setValueAtTime(0, now);
      mixed.gain.linearRampToValueAtTime(1, now + GLIDE);
      playing.mixed.gain.setValueAtTime(1, now);
      playing.mixed.gain.linearRampToValueAtTime(0, now + GLIDE);
      playing.source.onended = null;
      playing.source.stop(now + GLIDE);
    }
    playing = { source, mixed };
    source.onended = () => finished();
  }

  function finished() {
    state = "done";
    released.disconnect();
    self.ended?.();
  }

  function end(seconds) {
    const now = context.currentTime;
    const faded = state === "held" ? 1 : released.gain.value;
    if (state === "held") {
      const level = levelAt(shape, now - began) * velocity / 127;
      held.gain.cancelScheduledValues(now);
      held.gain.setValueAtTime(level, now);
    }
    released.gain.cancelScheduledValues(now);
    released.gain.setValueCurveAtTime(RELEASE.map((value) => value * faded), now, seconds);
    playing.source.stop(now + seconds);
  }

  const self = {
    note,
    ended: null,
    get state() {
      return state;
    },
    move: play,
    release() {
      if (state !== "held") return;
      end(times(knobs, pack).release);
      state = "released";
    },
    kill() {
      if (state === "done" || state === "killed") return;
      end(STEAL);
      state = "killed";
    },
  };
  play(sound);
  return self;
}

export class Synth {
  constructor(pack) {
    this.pack = pack;
    this.knobs = { position: 0, attack: 0, decay: 0.5, sustain: 1, release: 0.35 };
    this.loop = { looping: pack.looping, loopStart: pack.loopStart, loopEnd: pack.loopEnd };
    this.level = 0.8;
    this.voices = [];
    this.context = null;
    this.recording = null;
  }

  // Browsers allow sound only after a user gesture: call this from one.
  wake() {
    if (!this.context) {
      try {
        this.context = new AudioContext({ sampleRate: this.pack.outputRate, latencyHint: "interactive" });
      } catch {
        this.context = new AudioContext();
      }
      this.output = this.context.createGain();
      this.output.gain.value = this.level;
      this.meter = this.context.createAnalyser();
      this.meter.fftSize = 2048;
      this.output.connect(this.meter);
      this.meter.connect(this.context.destination);
    }
    if (this.context.state !== "running") this.context.resume();
  }

  set volume(level) {
    this.level = level;
    this.output?.gain.setTargetAtTime(level, this.context.currentTime, 0.01);
  }

  on(note, velocity, sound) {
    this.wake();
    if (this.voices.length >= HARD_VOICES) return null;
    const held = this.voices.filter(({ state }) => state === "held");
    if (held.length >= SOFT_VOICES) held[0].kill();
    const made = voice(
      this.context, this.output, this.pack, sound, note, velocity, { ...this.knobs }, this.loop,
    );
    this.voices.push(made);
    made.ended = () => {
      this.voices = this.voices.filter((other) => other !== made);
    };
    return made;
  }

  silence() {
    this.voices.forEach((each) => each.kill());
  }

  // The peak of the last 2048 samples; above 1 the output clips.
  peak() {
    if (!this.meter) return 0;
    const heard = new Float32Array(this.meter.fftSize);
    this.meter.getFloatTimeDomainData(heard);
    return heard.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }

  // Play a buffer once, instead of the previous one.
  play(buffer, gain, ended) {
    this.stop();
    const source = this.context.createBufferSource();
    const louder = this.context.createGain();
    source.buffer = buffer;
    louder.gain.value = gain;
    source.connect(louder).connect(this.output);
    source.onended = ended;
    source.start();
    this.recording = source;
  }

  stop() {
    this.recording?.stop();
    this.recording = null;
  }
}

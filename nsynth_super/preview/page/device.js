// The synth's arithmetic: the cell of a touch, the sample of a note, and how it is read, looped
// and shaped. Pure functions.

export const TOUCH = 11; // positions along a side of the pad
export const SOFT_VOICES = 32; // held at once; another one stops the oldest
export const HARD_VOICES = 40; // including those that fade out; another one is dropped
const CROSSFADE = 4000; // samples
const TAPER = 100; // samples of fade-out at the end of a sound without a loop
const LONGEST = 60; // seconds, for loops that never repeat exactly

// The synth computes in float32.
export function cellAlong(touch, resolution) {
  return Math.round(Math.fround(Math.fround(touch / (TOUCH - 1)) * (resolution - 1)));
}

export function cellOf([x, y], resolution) {
  return cellAlong(y, resolution) * resolution + cellAlong(x, resolution);
}

// Return the index of the nearest pitch; on a tie, the earlier one in the settings.
export function nearest(pitches, note) {
  let best = 0;
  pitches.forEach((pitch, index) => {
    if (Math.abs(pitch - note) < Math.abs(pitches[best] - note)) best = index;
  });
  return best;
}

export function rateOf(note, center) {
  return 2 ** ((note - center) / 12);
}

export function noteName(note) {
  return `${["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"][note % 12]}${Math.floor(note / 12) - 1}`;
}

export function frequencyOf(note) {
  return 440 * 2 ** ((note - 69) / 12);
}

// Return the loop of a sound of `length` samples, corrected as the synth does it.
export function loopOf({ looping, loopStart, loopEnd }, length) {
  const point = (share) => Math.floor(Math.fround(Math.fround(share) * length));
  let [start, end] = [point(loopStart), point(loopEnd)];
  let fade = CROSSFADE;
  if (end < start) [start, end] = [end, start];
  if (end - start < fade * 2) {
    if (end - start < 100) end = start + 100;
    fade = Math.floor((end - start) / 2);
  }
  start = Math.max(start, 2);
  end = Math.min(end, length - 3);
  let turnBack = end - fade;
  let turnOn = start + fade;
  if (turnBack < turnOn + fade * 2) {
    if (turnOn > fade * 2) turnOn -= fade * 2;
    else turnBack += fade * 2;
  }
  return { looping, start, end, fade, turnOn, turnBack };
}

// The synth's approximation of a square root.
function nearRoot(x) {
  return 2.55 * x - 2.88 * x * x + 1.33 * x * x * x;
}

class Growing {
  constructor() {
    this.values = new Float32Array(1 << 17);
    this.length = 0;
  }
  push(value) {
    if (this.length === this.values.length) {
      const larger = new Float32Array(2 * this.length);
      larger.set(this.values);
      this.values = larger;
    }
    this.values[this.length++] = value;
  }
  taken() {
    return this.values.subarray(0, this.length);
  }
}

// Return what the synth plays of `sound`, 16-bit, from `offset` on, at `speed` samples per step:
// up to its end, or until the loop repeats; then `from` is the step at which the repetition starts.
// A loop runs forward and back, with a crossfade at each turn.
export function trace(sound, speed, offset, loop, outputRate) {
  const last = sound.length - 1;
  const at = (playhead) => {
    const a = Math.max(0, Math.min(Math.floor(playhead), last));
    const b = Math.min(a + 1, last);
    return (sound[a] + (sound[b] - sound[a]) * (playhead - Math.floor(playhead))) / 32767;
  };
  const out = new Growing();
  let playhead = offset;
  if (!loop.looping) {
    for (; Math.floor(playhead) + 1 <= last; playhead += speed) {
      const b = Math.floor(playhead) + 1;
      out.push(at(playhead) * Math.min(1, (last - b) / (TAPER - 1)));
    }
    return { samples: out.taken(), from: null };
  }
  let direction = 1;
  let other = null; // the playhead that fades out: [position, direction, steps]
  let from = null;
  while (out.length < LONGEST * outputRate) {
    const heard = at(playhead);
    if (direction === 1 && Math.floor(playhead) >= loop.end) direction = -1;
    if (direction === 1 && playhead >= loop.turnBack) {
      other = [playhead, direction, 0];
      direction = -1;
      playhead = loop.end - 1;
    } else if (direction === -1 && playhead <= loop.turnOn) {
      if (from !== null) break;
      from = out.length;
      other = [playhead, direction, 0];
      direction = 1;
      playhead = loop.start;
    }
    if (other) {
      const along = other[2] / loop.fade;
      out.push(heard * nearRoot(along) + at(other[0]) * nearRoot(1 - along));
      other[0] += speed * other[1];
      if (++other[2] > loop.fade) other = null;
    } else out.push(heard);
    playhead += speed * direction;
  }
  return { samples: out.taken(), from };
}

// Return the knobs' times in seconds. The synth counts output steps as if they were samples of the
// sounds, so at 48 kHz every time is a third of what its formulas say.
export function times({ attack, decay, release }, { sampleRate, outputRate }) {
  const faster = sampleRate / outputRate;
  return {
    attack: Math.max(0.001, attack * attack * 4) * faster,
    decay: decay * faster,
    release: (0.001 + release ** 3 * 10) * faster,
    fullScale: 0.05 * faster, // the slew limit: the shortest time from 0 to 1
  };
}

const EVERY = 64; // steps between two values of an envelope

// Return the envelope of a held note, a value every `EVERY` steps, until it is constant.
export function envelope(knobs, pack, outputRate) {
  const { attack, decay, fullScale } = times(knobs, pack);
  const steps = Math.ceil((attack + decay + 2 * fullScale) * outputRate / EVERY) * EVERY;
  const limit = 1 / (fullScale * outputRate);
  const values = [];
  let level = 0;
  for (let step = 0; step <= steps; step++) {
    const time = step / outputRate;
    let wanted = knobs.sustain;
    if (time < attack) wanted = nearRoot(time / attack);
    else if (time < attack + decay) {
      wanted += (1 - knobs.sustain) * (1 - (time - attack) / decay) ** 2;
    }
    level = Math.min(Math.max(wanted, level - limit), level + limit);
    if (step % EVERY === 0) values.push(level);
  }
  return { values, spacing: EVERY / outputRate };
}

export function levelAt({ values, spacing }, time) {
  const place = Math.min(Math.max(time / spacing, 0), values.length - 1);
  const before = Math.floor(place);
  const after = Math.min(before + 1, values.length - 1);
  return values[before] + (values[after] - values[before]) * (place - before);
}

// Spectrogram: time to the right, log frequency upwards, brightness in decibels.

const SIZE = 2048; // samples per frame
const COLUMNS = 360;
const BANDS = 160;
const LOWEST = 40; // Hz
const DEPTH = 75; // dynamic range in decibels
const COLOURS = [[11, 13, 16], [27, 38, 77], [31, 112, 128], [127, 227, 212], [255, 244, 200]];

const HANN = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

function transform(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let length = 2; length <= n; length *= 2) {
    const half = length / 2;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / length;
      const c = Math.cos(angle);
      const s = Math.sin(angle);
      for (let i = k; i < n; i += length) {
        const j = i + half;
        const r = re[j] * c - im[j] * s;
        const m = re[j] * s + im[j] * c;
        re[j] = re[i] - r;
        im[j] = im[i] - m;
        re[i] += r;
        im[i] += m;
      }
    }
  }
}

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const i = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[i].map((low, c) => low + (COLOURS[i + 1][c] - low) * (place - i));
}

// Return the power of each band in each column, and the loudest frequency overall, in Hz.
export function analyse(sound, sampleRate) {
  const re = new Float64Array(SIZE);
  const im = new Float64Array(SIZE);
  const power = new Float32Array(COLUMNS * BANDS);
  const all = new Float64Array(SIZE / 2);
  const bins = Float32Array.from(
    { length: BANDS + 1 },
    (_, b) => (LOWEST * (sampleRate / 2 / LOWEST) ** (b / BANDS) * SIZE) / sampleRate,
  );
  for (let column = 0; column < COLUMNS; column++) {
    const middle = Math.round(((column + 0.5) * sound.length) / COLUMNS);
    for (let i = 0; i < SIZE; i++) re[i] = ((sound[middle - SIZE / 2 + i] ?? 0) / 32767) * HANN[i];
    im.fill(0);
    transform(re, im);
    for (let i = 0; i < SIZE / 2; i++) re[i] = re[i] * re[i] + im[i] * im[i];
    for (let i = 1; i < SIZE / 2; i++) all[i] += re[i];
    for (let band = 0; band < BANDS; band++) {
      const from = Math.floor(bins[band]);
      const to = Math.max(from, Math.min(Math.floor(bins[band + 1]), SIZE / 2 - 1));
      let most = 0;
      for (let i = from; i <= to; i++) most = Math.max(most, re[i]);
      power[band * COLUMNS + column] = most;
    }
  }
  const most = all.indexOf(all.reduce((a, b) => Math.max(a, b), 0));
  const [left, top, right] = [-1, 0, 1].map((by) => Math.log(all[most + by] || 1e-12));
  const bend = left - 2 * top + right;
  const loudest = most + (bend < 0 ? (0.5 * (left - right)) / bend : 0); // interpolated between bins
  return { power, loudest: (loudest * sampleRate) / SIZE };
}

// Draw `sound` and its loop points; return a description.
export function draw(canvas, sound, sampleRate, loop) {
  const { power, loudest } = analyse(sound, sampleRate);
  const top = power.reduce((most, value) => Math.max(most, value), 1e-12);
  canvas.width = COLUMNS;
  canvas.height = BANDS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(COLUMNS, BANDS);
  for (let band = 0; band < BANDS; band++) {
    for (let column = 0; column < COLUMNS; column++) {
      const decibels = 10 * Math.log10(Math.max(power[band * COLUMNS + column] / top, 1e-12));
      const at = 4 * ((BANDS - 1 - band) * COLUMNS + column);
      image.data.set([...colour(1 + decibels / DEPTH), 255], at);
    }
  }
  context.putImageData(image, 0, 0);
  const seconds = sound.length / sampleRate;
  let words = `${seconds.toFixed(2)} seconds, ${LOWEST} to ${sampleRate / 2} Hz, loudest around ${Math.round(loudest)} Hz`;
  if (loop.looping) {
    const ends = [Math.min(loop.turnOn, loop.start), loop.end];
    context.fillStyle = "#ffd166";
    ends.forEach((end) => context.fillRect(Math.round((end / sound.length) * COLUMNS), 0, 1, BANDS));
    const [from, to] = ends.map((end) => (end / sampleRate).toFixed(2));
    words += `; loops from ${from} to ${to} seconds, forward and back`;
  } else words += "; does not loop";
  return words;
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

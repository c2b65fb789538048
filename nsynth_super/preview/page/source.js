// The source of the sounds: the server, or the data embedded in an exported page.

const KEPT = 256; // rows in the cache

// A cache of rows, least recently used out first. Concurrent requests share one promise.
class Rows {
  constructor(load) {
    this.load = load;
    this.rows = new Map();
  }
  get(key, ...asked) {
    const found = this.rows.get(key) ?? this.load(...asked).catch((error) => {
      this.rows.delete(key);
      throw error;
    });
    this.rows.delete(key);
    this.rows.set(key, found);
    if (this.rows.size > KEPT) this.rows.delete(this.rows.keys().next().value);
    return found;
  }
}

function name(text) {
  return encodeURIComponent(text);
}

async function get(address, headers = {}) {
  const response = await fetch(address, { headers }).catch(() => {
    throw new Error("The server has stopped: run `nsynth-super preview` again.");
  });
  if (response.ok) return response;
  throw new Error((await response.text()).trim() || response.statusText);
}

async function served() {
  const pack = await (await get("pack.json")).json();
  const size = pack.length * 2;
  const rows = new Rows(async (pad, row) => {
    const range = `bytes=${row * size}-${(row + 1) * size - 1}`;
    return samples(await (await get(`pads/${name(pad)}.bin`, { Range: range })).arrayBuffer());
  });
  return {
    pack,
    row: (pad, row) => rows.get(`${row} ${pad}`, pad, row),
    progress: async (pad) => (await get(`progress/${name(pad)}.json`)).json(),
    note: async (instrument, pitch) =>
      (await get(`notes/${name(`${instrument}_${pitch}`)}.wav`)).arrayBuffer(),
  };
}

function embedded(element) {
  const { pack, pads, notes } = JSON.parse(element.textContent);
  const bytes = (id) => {
    const text = atob(document.getElementById(id).textContent);
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  };
  const rows = new Rows(async (pad, row) => samples(bytes(`sound-${pads[pad][row]}`)));
  return {
    pack,
    row: (pad, row) => rows.get(`${row} ${pad}`, pad, row),
    progress: async (pad) => ({
      identity: pack.identity,
      final: true,
      clips: null,
      total: null,
      made: pads[pad].map((sound) => (sound < 0 ? "0" : "1")).join(""),
    }),
    note: async (instrument, pitch) => bytes(`note-${notes[instrument][pitch]}`),
  };
}

const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

// Pads are little-endian on every machine.
function samples(buffer) {
  if (LITTLE) return new Int16Array(buffer);
  const view = new DataView(buffer);
  return Int16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getInt16(2 * i, true));
}

export async function openSource() {
  const element = document.getElementById("embedded");
  return element ? embedded(element) : served();
}

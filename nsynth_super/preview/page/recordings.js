// The table of recordings: each corner's recorded note beside the same note from the pad.

import { noteName } from "page/device.js";
import { $, make, tell } from "page/elements.js";

const PAD_PEAK = 8231 / 32767; // every sound of a pad has this peak; recordings are matched to it

export class Recordings {
  // `page` tells what is chosen; `changed()` is called when a sound starts.
  constructor(page, changed) {
    Object.assign(this, { page, changed });
    for (const pitch of [...page.pack.pitches].sort((a, b) => a - b)) {
      $("pitch").append(make("option", { value: pitch, textContent: `${noteName(pitch)} (${pitch})` }));
    }
    $("pitch").addEventListener("change", () => this.list());
  }

  // Choose a pitch.
  set pitch(pitch) {
    $("pitch").value = pitch;
  }

  list() {
    const { page } = this;
    const pitch = Number($("pitch").value);
    const last = page.pack.resolution - 1;
    const cells = [0, last, last * (last + 1), (last + 1) ** 2 - 1];
    $("notes").replaceChildren(...page.pack.corners.map(({ corner }, i) => {
      const { name } = page.corners.chosen[i];
      const recorded = page.pack.notes[name]?.includes(pitch)
        ? make("td", {}, this.player("Recorded", `${name}, recorded`, () => this.recorded(name, pitch)))
        : make("td", { textContent: "no recording" });
      if (!recorded.firstElementChild) recorded.dataset.missing = "";
      const model = this.player("Generated", `${name}, generated`, () => this.made(name, pitch, cells[i]));
      return make("tr", {},
        make("th", { scope: "row" }, name, make("small", { textContent: corner })),
        recorded, make("td", {}, model));
    }));
  }

  async recorded(name, pitch) {
    const content = await this.page.source.note(name, pitch);
    return this.page.synth.context.decodeAudioData(content.slice(0));
  }

  async made(name, pitch, cell) {
    const { page } = this;
    const row = page.row(pitch, cell);
    if (!page.isMade(row)) throw new Error(`${name} at ${noteName(pitch)} is not generated yet`);
    const sound = await page.source.row(page.pad, row);
    const buffer = page.synth.context.createBuffer(1, sound.length, page.pack.sampleRate);
    buffer.copyToChannel(Float32Array.from(sound, (value) => value / 32767), 0);
    return buffer;
  }

  player(words, label, load) {
    const { synth } = this.page;
    const button = make("button", { type: "button", textContent: `▶ ${words}`, ariaLabel: `Play ${label}` });
    button.setAttribute("aria-pressed", "false");
    let loading = false;
    button.addEventListener("click", async () => {
      synth.wake();
      if (loading) return; // double click
      if (button.ariaPressed === "true") {
        synth.stop();
        return;
      }
      loading = true;
      try {
        const buffer = await load();
        const peak = buffer.getChannelData(0).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        synth.play(buffer, peak > 0 ? PAD_PEAK / peak : 1, () => {
          button.ariaPressed = "false";
        });
        button.ariaPressed = "true";
        this.changed();
      } catch (error) {
        tell(error.message);
      } finally {
        loading = false;
      }
    });
    return button;
  }
}

// The sliders of the page: the synth's knobs, the volume and the loop points.

import { times } from "page/device.js";
import { $, make } from "page/elements.js";

// Append a slider from 0 to 1; return a function that sets it.
function slider(parent, id, label, value, words, changed) {
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

export function buildKnobs(synth, pack) {
  const { knobs } = synth;
  const seconds = (value) => `${value < 0.1 ? value.toFixed(3) : value.toFixed(2)} s`;
  const texts = {
    position: () => seconds((knobs.position * pack.length) / pack.sampleRate),
    attack: () => seconds(times(knobs, pack).attack),
    decay: () => seconds(times(knobs, pack).decay),
    sustain: () => `${Math.round(knobs.sustain * 100)} %`,
    release: () => seconds(times(knobs, pack).release),
  };
  for (const [knob, words] of Object.entries(texts)) {
    const label = knob[0].toUpperCase() + knob.slice(1);
    slider($("knobs"), knob, label, knobs[knob], words, (value) => {
      knobs[knob] = value;
    });
  }
  slider($("knobs"), "volume", "Volume", synth.level, () => `${Math.round(synth.level * 100)} %`, (value) => {
    synth.volume = value;
  });
}

// `moved()` is called after the loop changes.
export function buildLoop(synth, pack, moved) {
  const { loop } = synth;
  const changed = () => {
    $("loop-words").textContent =
      `"looping": ${loop.looping}, "loopStart": ${+loop.loopStart.toFixed(3)}, "loopEnd": ${+loop.loopEnd.toFixed(3)}`;
    moved();
  };
  const percent = (key) => () => `${Math.round(loop[key] * 100)} %`;
  const sliders = ["loopStart", "loopEnd"].map((key) =>
    slider($("loop-points"), key, key === "loopStart" ? "From" : "To", loop[key], percent(key), (value) => {
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
    const { looping, loopStart, loopEnd } = pack;
    Object.assign(loop, { looping, loopStart, loopEnd });
    show();
  });
  show();
}

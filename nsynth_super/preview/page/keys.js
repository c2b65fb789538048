// The keyboard section of the page: the keys, the octave buttons, hold, and MIDI.

import { noteName } from "page/device.js";
import { $ } from "page/elements.js";
import { Keyboard } from "page/keyboard.js";
import { listen } from "page/midi.js";

// Return the keyboard, with the octave around `note`; `notes` has `on(note, velocity)` and `off(note)`.
export function buildKeys(pack, synth, note, notes) {
  const keyboard = new Keyboard($("keys"), pack.pitches, {
    on: (pressed, velocity) => notes.on(pressed, velocity),
    off: (released) => notes.off(released),
    hold: () => $("hold").checked,
  });
  const octave = () => {
    $("octave").textContent = `from ${noteName(keyboard.base)}`;
  };
  const middle = Math.round((note - 12) / 12) * 12;
  keyboard.shift((Math.min(Math.max(middle, 0), 96) - keyboard.base) / 12);
  octave();
  $("lower").addEventListener("click", () => keyboard.shift(-1));
  $("higher").addEventListener("click", () => keyboard.shift(1));
  new MutationObserver(octave).observe($("keys"), { childList: true });
  $("hold").addEventListener("change", () => {
    if (!$("hold").checked) keyboard.release("latch");
  });
  $("midi").addEventListener("click", connector(keyboard, synth));
  return keyboard;
}

// Return what the MIDI button does.
function connector(keyboard, synth) {
  let listening = false;
  return async () => {
    synth.wake();
    if (!navigator.requestMIDIAccess) {
      $("heard").textContent = "This browser has no Web MIDI: try Chrome, Edge or Firefox.";
      return;
    }
    if (listening) return; // already, to present and future inputs
    listening = true;
    try {
      await listen(
        {
          on: (note, velocity) => keyboard.press(note, "midi", velocity),
          off: (note) => keyboard.release("midi", note),
        },
        (inputs) => {
          $("midi").textContent = inputs.length ? `MIDI: ${inputs.join(", ")}` : "MIDI: no keyboard found";
        },
      );
    } catch (error) {
      listening = false;
      $("heard").textContent = `The browser denies MIDI to this page (${error.message}).`;
    }
  };
}

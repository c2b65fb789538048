// The four corners: which instrument each one has, and the controls that choose it.

import { $, make } from "page/elements.js";

const NAMES = { NW: "North-west", NE: "North-east", SW: "South-west", SE: "South-east" };

export class Corners {
  // `changed()` is called after another instrument is chosen.
  constructor(pack, changed) {
    Object.assign(this, { pack, changed });
    this.choices = [0, 0, 0, 0];
    this.build();
  }

  // One control per corner, like the synth's four rotary encoders.
  build() {
    this.pack.corners.forEach(({ corner, instruments }, i) => {
      const where = NAMES[corner];
      const select = make("select", { id: `choice-${corner}`, ariaLabel: `${where} instrument` });
      instruments.forEach(({ name }, index) => select.append(make("option", { value: index, textContent: name })));
      const turn = (by, sign, words) => {
        const button = make("button", { type: "button", textContent: sign, ariaLabel: `${where}: ${words} instrument` });
        button.disabled = instruments.length < 2;
        button.addEventListener("click", () => {
          this.choices[i] = (this.choices[i] + by + instruments.length) % instruments.length;
          this.changed();
        });
        return button;
      };
      select.addEventListener("change", () => {
        this.choices[i] = Number(select.value);
        this.changed();
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

  show() {
    this.pack.corners.forEach(({ corner }, i) => {
      const { abbr, display } = this.chosen[i];
      $(`short-${corner}`).textContent = abbr;
      $(`display-${corner}`).textContent = display;
      $(`choice-${corner}`).value = this.choices[i];
    });
  }

  // The chosen instruments, in the order of the corners.
  get chosen() {
    return this.pack.corners.map(({ instruments }, i) => instruments[this.choices[i]]);
  }

  // The name of the pad of this combination.
  get pad() {
    return this.chosen.map(({ name }) => name).join("_");
  }

  // The shares of the instruments in a cell, as text.
  mix(cell) {
    const shares = new Map();
    this.pack.weights[cell].forEach((weight, i) => {
      const { name } = this.chosen[i];
      if (weight > 0) shares.set(name, (shares.get(name) ?? 0) + weight);
    });
    return [...shares]
      .sort((a, b) => b[1] - a[1])
      .map(([name, share]) => `${Math.round(share * 100)} % ${name}`)
      .join(", ");
  }
}

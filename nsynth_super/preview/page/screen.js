// The pad as the synth draws it: 11 by 11 dots that move out of the finger's way.

import { TOUCH, cellOf } from "page/device.js";

const UNITS = 64; // pixels along a side of the synth's screen
const ORIGIN = 7;
const SPACING = 5;
const BEND = [
  [0, 2, 0, -2, 0],
  [3, 3, 0, -3, -3],
  [2, 2, 0, -2, -2],
  [3, 3, 0, -3, -3],
  [0, 2, 0, -2, 0],
];
const LIT = "#e9eef2";
const HALF = "#8a97a3";
const DARK = "#3b444d";
const ACCENT = "#7fe3d4";

export class Screen {
  constructor(canvas, pack) {
    this.canvas = canvas;
    this.pack = pack;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.touch = [5, 5];
    this.states = [];
    this.sounding = false;
    this.dots = [];
    for (let y = 0; y < TOUCH; y++) {
      for (let x = 0; x < TOUCH; x++) {
        this.dots.push({ x, y, cell: cellOf([x, y], pack.resolution), at: [x, y].map(place), speed: [0, 0] });
      }
    }
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // `states`: the generated share of each cell, from 0 to 1.
  show(touch, states, sounding) {
    Object.assign(this, { touch, states, sounding });
    if (this.calm.matches) {
      this.dots.forEach((dot) => {
        dot.at = this.target(dot);
      });
      this.draw();
    } else if (!this.frame) {
      this.before = performance.now();
      this.frame = requestAnimationFrame((now) => this.step(now));
    }
  }

  target({ x, y }) {
    const cx = Math.trunc(x - this.touch[0]) + 2;
    const cy = Math.trunc(y - this.touch[1]) + 2;
    const bends = cx >= 0 && cx < 5 && cy >= 0 && cy < 5;
    return bends ? [place(x) + BEND[cy][cx], place(y) + BEND[cx][cy]] : [place(x), place(y)];
  }

  step(now) {
    const elapsed = Math.min((now - this.before) / 1000, 1 / 30);
    this.before = now;
    let moving = false;
    for (const dot of this.dots) {
      const target = this.target(dot);
      for (const axis of [0, 1]) {
        dot.speed[axis] = dot.speed[axis] * 0.65 ** (elapsed * 30) + (target[axis] - dot.at[axis]) * 300 * elapsed;
        dot.at[axis] += dot.speed[axis] * elapsed;
        if (Math.abs(target[axis] - dot.at[axis]) > 0.02 || Math.abs(dot.speed[axis]) > 0.2) moving = true;
      }
    }
    if (!moving) {
      this.dots.forEach((dot) => {
        dot.at = this.target(dot);
        dot.speed = [0, 0];
      });
    }
    this.draw();
    this.frame = moving ? requestAnimationFrame((next) => this.step(next)) : 0;
  }

  draw() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!side) return;
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    context.setTransform(side / UNITS, 0, 0, side / UNITS, 0, 0);
    context.clearRect(0, 0, UNITS, UNITS);
    const [x, y] = this.touch.map(place);
    context.fillStyle = DARK;
    context.fillRect(0, y - 0.1, UNITS, 0.2);
    context.fillRect(x - 0.1, 0, 0.2, UNITS);
    const current = cellOf(this.touch, this.pack.resolution);
    for (const dot of this.dots) {
      const made = this.states[dot.cell] ?? 0;
      const here = dot.cell === current;
      const size = here ? 1.9 : 1.3;
      context.fillStyle = made === 1 ? (here ? ACCENT : LIT) : made > 0 ? HALF : DARK;
      context.fillRect(dot.at[0] - size / 2, dot.at[1] - size / 2, size, size);
    }
    context.strokeStyle = ACCENT;
    context.lineWidth = this.sounding ? 0.9 : 0.45;
    context.beginPath();
    context.arc(x, y, 3.4, 0, 2 * Math.PI);
    context.stroke();
  }

  // Return the touch position at a point of the page.
  touched(clientX, clientY) {
    const { left, top, width } = this.canvas.getBoundingClientRect();
    return [clientX - left, clientY - top].map((along) => {
      const position = Math.round(((along / width) * UNITS - ORIGIN) / SPACING);
      return Math.min(Math.max(position, 0), TOUCH - 1);
    });
  }
}

function place(position) {
  return ORIGIN + SPACING * position;
}

"""Writes a SoundFont 2 of a few kilobytes: one sine and five presets."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

PERIOD = 184  # samples
RATE = 48_139  # Hz: makes the sine MIDI 60 to a hundredth of a cent
LOOP = (8 * PERIOD, 16 * PERIOD)
KEY_RANGE, SAMPLE_MODES, SAMPLE, INSTRUMENT = 43, 54, 53, 41  # generators
DELAY, RELEASE = 33, 38
LOOPED = 1

SINE, HIGH, DRUMS, LAYERED, LATE = (0, 0), (8, 5), (128, 0), (0, 1), (0, 2)
PRESETS: dict[tuple[int, int], tuple[str, int, list[tuple[int, int]]]] = {
    # (bank, program): name, layers of the sine, generators
    SINE: ("Tiny Sine", 1, []),
    HIGH: ("Tiny Sine High", 1, [(KEY_RANGE, 60 | 127 << 8)]),
    DRUMS: ("Kit: Größe 1", 1, []),
    LAYERED: ("Loud=Layers", 8, []),
    LATE: ("Late", 1, [(DELAY, -1200)]),  # timecents: half a second
}


def write(path: Path) -> Path:
    """Write the SoundFont to `path`."""
    sine = 0.9 * np.sin(2 * np.pi * np.arange(LOOP[1] + PERIOD) / PERIOD)
    samples = np.concatenate([np.round(32767 * sine).astype("<i2"), np.zeros(46, "<i2")])
    info = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"INAM", b"tiny\0\0")
    body = (
        b"sfbk"
        + _chunk(b"LIST", b"INFO" + info)
        + _chunk(b"LIST", b"sdta" + _chunk(b"smpl", samples.tobytes()))
        + _chunk(b"LIST", b"pdta" + _presets_and_instruments(len(sine)))
    )
    path.write_bytes(_chunk(b"RIFF", body))
    return path


def _presets_and_instruments(samples: int) -> bytes:
    headers, preset_bags, preset_generators = b"", b"", b""
    instruments, bags, generators = b"", b"", b""
    for number, ((bank, program), (name, layers, own)) in enumerate(PRESETS.items()):
        headers += struct.pack("<20sHHHIII", _name(name), program, bank, number, 0, 0, 0)
        preset_bags += struct.pack("<HH", number, 0)
        preset_generators += struct.pack("<HH", INSTRUMENT, number)
        instruments += struct.pack("<20sH", _name(name), len(bags) // 4)
        for _ in range(layers):
            bags += struct.pack("<HH", len(generators) // 4, 0)
            for generator, amount in [*own, (RELEASE, -2400), (SAMPLE_MODES, LOOPED), (SAMPLE, 0)]:
                generators += struct.pack("<HH", generator, amount & 0xFFFF)
    last = len(PRESETS)
    headers += struct.pack("<20sHHHIII", b"EOP", 0, 0, last, 0, 0, 0)
    preset_bags += struct.pack("<HH", last, 0)
    instruments += struct.pack("<20sH", b"EOI", len(bags) // 4)
    bags += struct.pack("<HH", len(generators) // 4, 0)
    shape = (0, samples, *LOOP, RATE, 60, 0, 0, 1)
    sample_headers = struct.pack("<20sIIIIIBbHH", b"sine", *shape)
    sample_headers += struct.pack("<20sIIIIIBbHH", b"EOS", *9 * (0,))
    return b"".join(
        _chunk(identity, content)
        for identity, content in (
            (b"phdr", headers),
            (b"pbag", preset_bags),
            (b"pmod", bytes(10)),
            (b"pgen", preset_generators + bytes(4)),
            (b"inst", instruments),
            (b"ibag", bags),
            (b"imod", bytes(10)),
            (b"igen", generators + bytes(4)),
            (b"shdr", sample_headers),
        )
    )


def _chunk(identity: bytes, content: bytes) -> bytes:
    return identity + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _name(name: str) -> bytes:
    return name.encode("latin-1")

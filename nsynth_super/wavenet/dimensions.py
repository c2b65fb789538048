"""The model's sizes, and the table of variables that they imply.

Every size that Magenta's `h512_bo16` types as a number is read off the variables here, so that the
same code runs the published model and one a hundredth of its size. What the variables do not say
(how often dilations start over, how many samples a frame covers) is the architecture's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nsynth_super.problems import Problem

CODES = 256  # 8-bit mu-law
TAPS = 3  # of every dilated convolution
STAGES = 10  # dilations 1, 2, 4, … 512, then again from 1
HOP = 512  # samples an embedding's frame covers


def dilation(layer: int) -> int:
    """Return the dilation of layer `layer`, counted from 0."""
    return int(2 ** (layer % STAGES))


@dataclass(frozen=True)
class Dimensions:
    """Sizes of one model; the defaults are the published checkpoint's.

    Attributes
    ----------
    width, skip_width : int
        Channels of the decoder's residual and skip paths.
    layers : int
        Dilated layers of the decoder.
    embedding : int
        Channels of an embedding.
    encoder_width, encoder_layers : int
        Channels and dilated layers of the encoder.
    """

    width: int = 512
    skip_width: int = 256
    layers: int = 30
    embedding: int = 16
    encoder_width: int = 128
    encoder_layers: int = 30

    @property
    def dilations(self) -> list[int]:
        """Dilation of each decoder layer."""
        return [dilation(layer) for layer in range(self.layers)]

    @property
    def receptive_field(self) -> int:
        """Codes in the past that the decoder's state is a function of: 6,140 when published."""
        return (TAPS - 1) * (1 + sum(self.dilations))

    @property
    def multiplications(self) -> int:
        """Multiplications that a sample of a clip takes: 59.0 million when published.

        In matrix products, those of conditioning (once a frame) and of the last layer's `res`
        (which feeds nothing) left out.
        """
        w, s, layers = self.width, self.skip_width, self.layers
        taps, res, skip = layers * TAPS * w * 2 * w, (layers - 1) * w * w, layers * w * s
        return taps + res + skip + w * s + s * s + s * CODES

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every variable's shape by its name in Magenta's checkpoint, in a fixed order."""
        table: dict[str, tuple[int, ...]] = {}

        def convolution(name: str, taps: int, inputs: int, outputs: int) -> None:
            table[f"{name}/W"] = (1, taps, inputs, outputs)
            table[f"{name}/biases"] = (outputs,)

        convolution("ae_startconv", TAPS, 1, self.encoder_width)
        for i in range(1, self.encoder_layers + 1):
            convolution(f"ae_dilatedconv_{i}", TAPS, self.encoder_width, self.encoder_width)
            convolution(f"ae_res_{i}", 1, self.encoder_width, self.encoder_width)
        convolution("ae_bottleneck", 1, self.encoder_width, self.embedding)
        convolution("startconv", TAPS, 1, self.width)
        convolution("skip_start", 1, self.width, self.skip_width)
        for i in range(1, self.layers + 1):
            convolution(f"dilatedconv_{i}", TAPS, self.width, 2 * self.width)
            convolution(f"cond_map_{i}", 1, self.embedding, 2 * self.width)
            convolution(f"res_{i}", 1, self.width, self.width)
            convolution(f"skip_{i}", 1, self.width, self.skip_width)
        convolution("out1", 1, self.skip_width, self.skip_width)
        convolution("cond_map_out1", 1, self.embedding, self.skip_width)
        convolution("logits", 1, self.skip_width, CODES)
        return table


PUBLISHED = Dimensions()


def read_off(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Dimensions, list[Problem]]:
    """Read a model's sizes off its variables, and check every variable against them.

    Parameters
    ----------
    shapes : mapping
        Shape of each variable, by name. Names that the model does not know are ignored.

    Returns
    -------
    dimensions : Dimensions
        The sizes; meaningful only if there are no problems.
    problems : list of Problem
        One for each variable that is missing or has another shape.
    """

    def size(name: str, axis: int, default: int) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) > axis else default

    def count(prefix: str) -> int:
        numbers = [
            int(number)
            for name in shapes
            if name.startswith(prefix) and name.endswith("/W")
            if (number := name[len(prefix) : -len("/W")]).isdigit()
        ]
        return max(numbers, default=0)

    dimensions = Dimensions(
        width=size("startconv/W", 3, PUBLISHED.width),
        skip_width=size("skip_start/W", 3, PUBLISHED.skip_width),
        layers=count("dilatedconv_") or PUBLISHED.layers,
        embedding=size("ae_bottleneck/W", 3, PUBLISHED.embedding),
        encoder_width=size("ae_startconv/W", 3, PUBLISHED.encoder_width),
        encoder_layers=count("ae_dilatedconv_") or PUBLISHED.encoder_layers,
    )
    problems = []
    for name, expected in dimensions.shapes().items():
        if name not in shapes:
            problems.append(
                Problem(name, "is missing from the checkpoint", "is it NSynth's WaveNet?")
            )
        elif tuple(shapes[name]) != expected:
            problems.append(
                Problem(
                    name,
                    f"has shape {list(shapes[name])}, expected {list(expected)}",
                    "is it whole?",
                )
            )
    return dimensions, problems


def describe(dimensions: Dimensions) -> str:
    """Return the sizes on one line; the published ones by their name."""
    if dimensions == PUBLISHED:
        return "h512_bo16, the published size"
    return ", ".join(f"{name} {size}" for name, size in asdict(dimensions).items())

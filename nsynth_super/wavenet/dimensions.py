"""The model's sizes, inferred from its variables, and the shapes of these variables.

Magenta's `h512_bo16` hard-codes every size; here the shapes of the variables determine them, so
that the same code runs the published model and one a hundredth of its size. The constants below
cannot be inferred: they belong to the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nsynth_super.base.errors import Problem

CODES = 256  # 8-bit mu-law
TAPS = 3  # filter length of every dilated convolution
STAGES = 10  # dilations 1, 2, 4, … 512, then again from 1
HOP = 512  # samples per frame of an embedding


def dilation(layer: int) -> int:
    """Return the dilation of a layer, in samples; layers count from 0."""
    return int(2 ** (layer % STAGES))


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model; the defaults are those of the published checkpoint.

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
        """Dilation of each decoder layer, in samples."""
        return [dilation(layer) for layer in range(self.layers)]

    @property
    def receptive_field(self) -> int:
        """Past codes that determine the decoder's state: 6,140 for the published sizes."""
        return (TAPS - 1) * (1 + sum(self.dilations))

    @property
    def multiplications(self) -> int:
        """Multiplications per sample and clip: 59.0 million for the published sizes.

        Counts matrix products, except conditioning (once per frame) and the last layer's `res`
        (its result is unused).
        """
        w, s, layers = self.width, self.skip_width, self.layers
        taps, res, skip = layers * TAPS * w * 2 * w, (layers - 1) * w * w, layers * w * s
        return taps + res + skip + w * s + s * s + s * CODES

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every variable, by its name in Magenta's checkpoint, in order."""
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


def infer_dimensions(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Dimensions, list[Problem]]:
    """Infer a model's sizes from the shapes of its variables, and check every variable.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each variable, by name. Unknown names are ignored.

    Returns
    -------
    dimensions : Dimensions
        The sizes; meaningful only if there are no problems.
    problems : list of Problem
        One for each variable that is missing or has an unexpected shape.
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
            problems.append(Problem(name, "missing from the checkpoint", "is it NSynth's WaveNet?"))
        elif tuple(shapes[name]) != expected:
            problems.append(
                Problem(
                    name,
                    f"has shape {list(shapes[name])}, expected {list(expected)}",
                    "is it NSynth's WaveNet?",
                )
            )
    return dimensions, problems


def describe(dimensions: Dimensions) -> str:
    """Return the sizes on one line; the published sizes by name."""
    if dimensions == PUBLISHED:
        return "h512_bo16, the published size"
    return ", ".join(f"{name} {size}" for name, size in asdict(dimensions).items())

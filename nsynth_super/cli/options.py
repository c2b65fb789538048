"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsynth_super.problems import BadInput, errors
from nsynth_super.progress import say, stop_at_once
from nsynth_super.settings import MAX_SEED, Settings, read
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.engines import Engine

F = TypeVar("F", bound=Callable[..., Any])


class ShardType(click.ParamType):  # type: ignore[type-arg]
    """`I/N`, or `auto`, as a `plan.Shard`."""

    name = "I/N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read `I/N`; ask Slurm's variables for `auto`."""
        from nsynth_super import machine
        from nsynth_super.plan import Shard

        if isinstance(value, Shard):
            return value
        if value == "auto":
            return Shard(*machine.shard())
        try:
            return Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CountType(click.ParamType):  # type: ignore[type-arg]
    """A number above 0, or `auto`, which is 0."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        if value == "auto":
            return 0
        return click.IntRange(1).convert(value, param, ctx)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Make several options one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


workspace_option = click.option(
    "-w",
    "--workspace",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="The pack's folder; the current one by default.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Of the clips' random numbers; settings.json's by default.",
)
fill_option = click.option(
    "--fill-missing",
    "fill",
    type=click.Choice(["repeat", "repitch"]),
    help="Fill missing pitches from the nearest: as it is, or re-pitched.",
)
batch_option = click.option(
    "--batch-clips",
    type=click.IntRange(64),
    envvar="NSYNTH_BATCH_CLIPS",
    help="Clips to decode at once, in multiples of 64; $NSYNTH_BATCH_CLIPS, or what memory allows, "
    "by default.",
)
workers_option = click.option(
    "--workers",
    type=CountType(),
    default="auto",
    help="Processes that share the work; auto, the default: one for each GPU that may be used, or "
    "on the CPU as many as are fastest.",
)
magenta_option = click.option(
    "--magenta",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PYTHON",
    help="The Python 2.7 that has Magenta, for --engine magenta; $NSYNTH_MAGENTA by default.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    help="Of the CPU; one for each core that may be used by default.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="auto is a GPU of NVIDIA's (or AMD's) if PyTorch can use one, else the CPU.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="Of our own engine's products; auto is the fastest here that changes next to nothing.",
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The model: .safetensors, TensorFlow's prefix, its folder or .tar; demo is the small one "
    "in the box. $NSYNTH_CHECKPOINT, or the one that `checkpoint fetch` got, by default.",
)
model_options = options(
    click.option(
        "--engine",
        type=click.Choice(["auto", "torch", "magenta"]),
        default="auto",
        help="Ours on PyTorch, or the original on TensorFlow 1.15; auto is torch.",
    ),
    magenta_option,
    device_option,
    precision_option,
    checkpoint_option,
    threads_option,
)
device_settings_option = click.option(
    "--device-settings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The device's present settings.json: its audio, MIDI and looping are kept.",
)


def open_model(
    checkpoint: Path | None,
    threads: int | None,
    engine: str,
    device: str,
    precision: str,
    magenta: Path | None,
    **_: Any,
) -> Engine:
    """Open the engine that `model_options` name; other options are not its business."""
    from nsynth_super.engines import open_engine

    said = click.get_current_context().obj
    return open_engine(
        *(checkpoint, threads, engine, device, precision, magenta),
        quiet=said["quiet"],
        verbose=said["verbose"],
    )


def settings_of(workspace: Workspace, quiet: bool) -> Settings:
    """Read a workspace's settings, tell what is worth knowing of them, refuse what is wrong."""
    stop_at_once()
    settings, problems = read(workspace.settings)
    if settings is None:
        raise BadInput(errors(problems))
    if not quiet:
        for problem in problems:
            say(f"{problem.level}: {problem}")
    return settings

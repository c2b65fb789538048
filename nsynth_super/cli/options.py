"""Options shared by several commands, and the objects that they create."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsynth_super.base.errors import BadInput, errors
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.runtime.signals import stop_at_once
from nsynth_super.settings import MAX_SEED, Settings, read

if TYPE_CHECKING:
    from nsynth_super.engines.base import Engine

F = TypeVar("F", bound=Callable[..., Any])


class ShardType(click.ParamType):  # type: ignore[type-arg]
    """Convert `I/N` or `auto` to a `plan.Shard`."""

    name = "I/N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse `I/N`; `auto` reads Slurm's variables."""
        from nsynth_super.base import allocation
        from nsynth_super.pack.plan import Shard

        if isinstance(value, Shard):
            return value
        if value == "auto":
            return Shard(*allocation.shard())
        try:
            return Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CountType(click.ParamType):  # type: ignore[type-arg]
    """Convert a positive number or `auto`, which becomes 0."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number."""
        if value == "auto":
            return 0
        return click.IntRange(1).convert(value, param, ctx)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine several option decorators into one."""

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
    help="The workspace  [default: the current folder]",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Random seed of the clips  [default: seed in settings.json]",
)
fill_option = click.option(
    "--fill-missing",
    "fill",
    type=click.Choice(["repeat", "repitch"]),
    help="Fill each missing pitch with the nearest recording: unchanged, or re-pitched.",
)
batch_option = click.option(
    "--batch-clips",
    type=click.IntRange(64),
    envvar="NSYNTH_BATCH_CLIPS",
    help="Clips to decode at once, a multiple of 64  [default: $NSYNTH_BATCH_CLIPS, or as many as "
    "memory allows]",
)
workers_option = click.option(
    "--workers",
    type=CountType(),
    default="auto",
    help="Processes that share the work  [default: auto = one per available GPU; on the CPU, the "
    "fastest number]",
)
magenta_option = click.option(
    "--magenta",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PYTHON",
    help="Python 2.7 with Magenta, for --engine magenta  [default: $NSYNTH_MAGENTA]",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads  [default: one per available core]",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="Device to compute on  [default: auto = a GPU that PyTorch supports, else the CPU]",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="Precision of the torch engine's matrix products  [default: auto = the fastest here with "
    "negligible error]",
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The model: a .safetensors file; TensorFlow's prefix, folder or .tar; or demo, the "
    "small bundled model  [default: $NSYNTH_CHECKPOINT, or the result of `checkpoint fetch`]",
)
model_options = options(
    click.option(
        "--engine",
        type=click.Choice(["auto", "torch", "magenta"]),
        default="auto",
        help="torch, or the original implementation on TensorFlow 1.15  [default: auto = torch]",
    ),
    magenta_option,
    device_option,
    precision_option,
    checkpoint_option,
    threads_option,
)


def synth_settings_option(help_text: str) -> Callable[[F], F]:
    """Return the option `--synth-settings` and its deprecated name `--device-settings`."""
    path = click.Path(dir_okay=False, path_type=Path)
    former = "nsynth_super.device_settings"

    def remember(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            say("note: --device-settings is deprecated -> use --synth-settings")
        ctx.meta[former] = value

    def choose(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
        return ctx.meta.get(former) if value is None else value

    return options(
        click.option("--synth-settings", type=path, callback=choose, help=help_text),
        click.option(
            "--device-settings",
            type=path,
            callback=remember,
            hidden=True,
            is_eager=True,  # known before --synth-settings is processed
            expose_value=False,
        ),
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
    """Open the engine that `model_options` select; ignore other options."""
    from nsynth_super.engines.opening import open_engine

    verbosity = click.get_current_context().obj
    return open_engine(
        *(checkpoint, threads, engine, device, precision, magenta),
        quiet=verbosity["quiet"],
        verbose=verbosity["verbose"],
    )


def settings_of(workspace: Workspace, quiet: bool) -> Settings:
    """Return a workspace's settings; print warnings and notes unless `quiet`, raise on errors."""
    stop_at_once()
    settings, problems = read(workspace.settings)
    if settings is None:
        raise BadInput(errors(problems))
    if not quiet:
        for problem in problems:
            say(f"{problem.level}: {problem}")
    return settings

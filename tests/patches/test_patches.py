"""Each patch cures what it says: Magenta's own programs, as published and mended.

What each is about must be cured with the one patch alone and with all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nsynth_super.wavenet.mulaw import AMPLITUDES
from tests.patches.magentas import Magenta, copy_magenta

HOP = 512  # samples of a frame
CHANNELS = 16  # of an encoding
PROGRESS = re.compile(
    r"Sample: (\d+)/(\d+) \((\d+\.\d)%, (\d+\.\d) samples/s, (\d+):(\d\d):(\d\d) left\)"
)


def mended_by(number: str) -> pytest.MarkDecorator:
    """Run a test with this patch alone, and with all."""
    return pytest.mark.parametrize("mended", [number, "patched"], indirect=True)


@pytest.fixture
def encodings(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that saves encodings of these numbers of frames; it returns flags."""

    def save(*frames: int) -> list[str]:
        folder = tmp_path / "encodings"
        folder.mkdir()
        for number, count in enumerate(frames):
            np.save(folder / f"{number}.npy", np.full([count, CHANNELS], 1.0 + number))
        flags = [f"--source_path={folder}", f"--save_path={tmp_path}"]
        return [*flags, f"--batch_size={len(frames)}"]

    return save


@pytest.fixture
def notes(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that records silent notes; it returns flags."""

    def record(count: int, batch: int | None = None) -> list[str]:
        folder = tmp_path / "notes"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            soundfile.write(folder / f"{number}.wav", np.zeros(HOP), 16_000)
        flags = [f"--source_path={folder}", f"--save_path={tmp_path}"]
        return [*flags, f"--batch_size={batch or count}"]

    return record


# 0001


@mended_by("0001")
def test_an_encoding_is_decoded_as_long_as_it_is(
    published: Magenta, mended: Magenta, encodings: Callable[..., list[str]]
):
    flags = encodings(125, 125)
    (padded,) = published.probe("arguments", *flags)["calls"]
    assert padded["frames"] == [64_000, 64_000]
    assert padded["silent_frames"] == [64_000 - 125] * 2
    (call,) = mended.probe("arguments", *flags)["calls"]
    assert call["frames"] == [125, 125]
    assert call["silent_frames"] == [0, 0]
    assert call["first_frame"] == padded["first_frame"] == [[1.0] * CHANNELS, [2.0] * CHANNELS]


@pytest.mark.parametrize(("samples", "frames"), [(512, 1), (513, 2), (60_000, 118), (99_999, 125)])
def test_sample_length_is_in_samples_and_cuts(
    patched: Magenta, encodings: Callable[..., list[str]], samples: int, frames: int
):
    (call,) = patched.probe("arguments", *encodings(125), f"--sample_length={samples}")["calls"]
    assert call["frames"] == [frames]
    assert call["silent_frames"] == [0]


def test_sample_length_was_in_frames(published: Magenta, encodings: Callable[..., list[str]]):
    (call,) = published.probe("arguments", *encodings(125), "--sample_length=60000")["calls"]
    assert call["frames"] == [60_000]


def test_encodings_of_different_lengths_are_an_error_that_names_them(
    published: Magenta, patched: Magenta, encodings: Callable[..., list[str]]
):
    flags = encodings(125, 118)
    (padded,) = published.probe("arguments", *flags)["calls"]
    assert padded["silent_frames"] == [64_000 - 125, 64_000 - 118]
    refused = patched.probe("arguments", *flags)
    assert refused["calls"] == []
    assert re.fullmatch(
        r"ValueError: .* equally long: \S+/1\.npy has 118 frames, \S+/0\.npy has 125",
        refused["error"],
    )
    (call,) = patched.probe("arguments", *flags, "--sample_length=1024")["calls"]
    assert call["frames"] == [2, 2], "cut to the same length, they are one batch"


# 0002


@mended_by("0002")
def test_embeddings_keep_the_names_of_their_notes(
    published: Magenta, mended: Magenta, tmp_path: Path
):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("windfx_60.wav", "viola_w.wav", "vava.wav", "drum.v1.wav", "oboe_72.WAV"):
        soundfile.write(notes / name, np.zeros(HOP), 16_000, format="WAV")
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.with_name("model.ckpt.index").touch()  # all that is looked at before encoding

    def names(magenta: Magenta) -> set[str]:
        embeddings = tmp_path / magenta.package.parent.name
        flags = [f"--source_path={notes}", f"--save_path={embeddings}", f"--sample_length={HOP}"]
        told = magenta.probe("save-embeddings", *flags, f"--checkpoint_path={checkpoint}")
        assert told["error"] is None
        return {path.name.removesuffix("_embeddings.npy") for path in embeddings.iterdir()}

    assert names(published) == {"indfx_60", "iola_", "", "drum.v1", "oboe_72.WAV"}
    assert names(mended) == {"windfx_60", "viola_w", "vava", "drum.v1", "oboe_72"}


# 0003


def probed_progress(magenta: Magenta, notes: Callable[..., list[str]], steps: int, seconds: float):
    """Decode two clips of so many steps at so many seconds each.

    Returns the times of the lines that were logged, the lines, and how often each was written.
    """
    flags = [*notes(2), f"--sample_length={steps}", f"--seconds={seconds}"]
    told = magenta.probe("generate", *flags)
    times, lines = zip(*told["lines"], strict=True)
    return np.array(times), list(lines), told["stderr"].count("Sample: ") / len(lines)


@mended_by("0003")
def test_progress_has_total_rate_and_time_left(
    published: Magenta, mended: Magenta, notes: Callable[..., list[str]]
):
    steps, seconds = 5 * HOP, 0.05
    _, before, written = probed_progress(published, notes, steps, seconds)
    assert before == [f"Sample: {step}" for step in range(0, steps, 100)]
    assert written == 2, "by TensorFlow and by absl"

    times, lines, written = probed_progress(mended, notes, steps, seconds)
    assert written == 1
    matches = [PROGRESS.fullmatch(line) for line in lines]
    assert all(matches)
    done = np.array([int(match[1]) for match in matches])
    np.testing.assert_allclose(done * seconds, times - 1000)
    assert done[-1] == steps
    for match, count in zip(matches, done, strict=True):
        assert int(match[2]) == steps
        assert float(match[3]) == pytest.approx(100 * count / steps, abs=0.051)
        assert float(match[4]) == pytest.approx(1 / seconds), "of the batch, not of its clips"
        hours, minutes, rest = (int(match[i]) for i in (5, 6, 7))
        left = 3600 * hours + 60 * minutes + rest
        assert left == pytest.approx((steps - count) * seconds, abs=1)


def test_the_time_left_of_days_is_in_hours(patched: Magenta, notes: Callable[..., list[str]]):
    _, lines, _ = probed_progress(patched, notes, HOP, 3600.0)
    assert lines[0].endswith("left)")
    assert PROGRESS.fullmatch(lines[0])[5] == str(HOP - 2)


@pytest.mark.parametrize("seconds", [0.05, 0.7])
def test_progress_moves_at_first_and_fills_no_disk(
    patched: Magenta, notes: Callable[..., list[str]], seconds: float
):
    times, _, _ = probed_progress(patched, notes, 5 * HOP, seconds)
    times -= 1000 + seconds  # when the first step was done
    gaps = np.diff(times[:-1], prepend=0.0)
    early = times[:-1] < 60
    at_most_a_step_late = seconds + 1e-6
    assert (gaps[early] >= 2 - 1e-6).all()
    assert (gaps[early] <= 2 + at_most_a_step_late).all()
    assert (gaps[~early] >= 10 - 1e-6).all()
    assert (gaps[~early] <= 10 + at_most_a_step_late).all()


# 0004


@mended_by("0004")
def test_the_jobs_gpus_are_respected(
    published: Magenta, mended: Magenta, encodings: Callable[..., list[str]]
):
    flags = encodings(2)
    (call,) = published.probe("arguments", *flags, gpus="2,3")["calls"]
    assert call["gpus"] == "0"
    (call,) = mended.probe("arguments", *flags, gpus="2,3")["calls"]
    assert call["gpus"] == "2,3"


@pytest.mark.parametrize(
    ("jobs", "number", "gpu"),
    [
        ("2,3", [1], "3"),
        ("GPU-8932f937,GPU-1f5a3b6c", [1], "GPU-1f5a3b6c"),
        ("", [], ""),
    ],
)
def test_a_gpu_number_is_one_of_the_jobs(
    patched: Magenta, encodings: Callable[..., list[str]], jobs: str, number: list, gpu: str
):
    flags = [*encodings(2), *(f"--gpu_number={i}" for i in number)]
    (call,) = patched.probe("arguments", *flags, gpus=jobs)["calls"]
    assert call["gpus"] == gpu


def test_a_gpu_that_the_job_has_not_is_an_error(
    published: Magenta, patched: Magenta, encodings: Callable[..., list[str]]
):
    flags = [*encodings(2), "--gpu_number=2"]
    (call,) = published.probe("arguments", *flags, gpus="2,3")["calls"]
    assert call["gpus"] == "2"
    refused = patched.probe("arguments", *flags, gpus="2,3")
    assert refused["calls"] == []
    assert "--gpu_number=2 is not among" in refused["error"]
    assert "CUDA_VISIBLE_DEVICES=2,3" in refused["error"]


@pytest.mark.parametrize(("flags", "gpu"), [([], "0"), (["--gpu_number=2"], "2")])
def test_without_a_job_the_gpu_is_the_one_it_was(
    published: Magenta,
    patched: Magenta,
    encodings: Callable[..., list[str]],
    flags: list[str],
    gpu: str,
):
    flags = [*encodings(2), *flags]
    for magenta in (published, patched):
        (call,) = magenta.probe("arguments", *flags)["calls"]
        assert call["gpus"] == gpu


# 0005


@mended_by("0005")
def test_clips_are_saved_at_the_end_alone_unless_asked_for(
    published: Magenta, mended: Magenta, notes: Callable[..., list[str]]
):
    steps = 20 * HOP
    flags = [*notes(2), f"--sample_length={steps}"]
    assert 10_000 < steps < 2 * 10_000
    # A flag that it does not know, Magenta ignores in silence.
    before = published.probe("generate", *flags, "--samples_per_save=4000")
    assert before["saves"] == [1, 10_001, steps]
    assert mended.probe("generate", *flags)["saves"] == [steps]
    asked = mended.probe("generate", *flags, "--samples_per_save=4000")
    assert asked["saves"] == [1, 4001, 8001, steps]


# 0006


@mended_by("0006")
def test_index_256_is_never_drawn(published: Magenta, mended: Magenta, tmp_path: Path):
    mass = np.random.default_rng(6).dirichlet(np.full(256, 0.2), 4000).astype(np.float32)
    mass[:500, 200:] = 0
    mass[:500] *= 0.99999  # as a float32 sum of a softmax, only more often
    uniform = np.random.default_rng(7).random(4000)
    uniform[::5] = 1 - 2.0**-53  # the greatest that numpy draws
    np.savez(tmp_path / "arrays.npz", mass=mass, uniform=uniform)
    flag = f"--arrays={tmp_path / 'arrays.npz'}"
    before = np.array(published.probe("draw", flag)["codes"])
    after = np.array(mended.probe("draw", flag)["codes"])
    wrong = before == 256
    assert wrong.sum() > 300
    assert wrong[:500].sum() >= 100
    assert after.max() <= 255
    assert (after[:500] < 200).all(), "no code of no probability"
    assert (mass[np.arange(4000), after] > 0).all()
    np.testing.assert_array_equal(after[~wrong], before[~wrong])


# 0007


def probed_codes(magenta: Magenta, notes: Callable[..., list[str]], *flags: str) -> list:
    """Decode three clips, two at a time; return the codes of each clip."""
    source = notes(3, batch=2)
    told = magenta.probe("generate", *source, f"--sample_length={HOP}", *flags)
    assert told["exit"] == 0
    folder = Path(source[1].removeprefix("--save_path="))
    clips = [soundfile.read(folder / f"gen_{i}.wav", dtype="float32")[0] for i in range(3)]
    return [np.searchsorted(AMPLITUDES, clip).tolist() for clip in clips]


def test_two_runs_never_were_the_same(published: Magenta, notes: Callable[..., list[str]]):
    seventh = probed_codes(published, notes, "--seed=7")
    assert seventh != probed_codes(published, notes, "--seed=7"), "ignored in silence"


@mended_by("0007")
def test_a_seed_makes_the_same_clips_and_no_seed_others(
    mended: Magenta, notes: Callable[..., list[str]]
):
    seventh = probed_codes(mended, notes, "--seed=7")
    assert seventh == probed_codes(mended, notes, "--seed=7")
    assert probed_codes(mended, notes) not in (seventh, probed_codes(mended, notes))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_draws_are_numpys_old_stream_in_the_order_of_steps_through_all_batches(
    patched: Magenta, notes: Callable[..., list[str]], seed: int
):
    stream = np.random.RandomState(seed)
    pair = np.stack([stream.rand(2) for _ in range(HOP)])
    single = np.stack([stream.rand(1) for _ in range(HOP)])
    uniforms = [pair[:, 0], pair[:, 1], single[:, 0]]
    cumulative = np.arange(1, 257) / 256  # the probe's even probabilities
    expected = [np.searchsorted(cumulative, uniform).tolist() for uniform in uniforms]
    assert probed_codes(patched, notes, f"--seed={seed}") == expected


# 0008


@mended_by("0008")
def test_import_magenta_imports_nothing_but_its_version(mended: Magenta, tmp_path: Path):
    as_in_the_wheel = Magenta(copy_magenta(tmp_path)).probe("import")
    assert re.match("ImportError: No module named", as_in_the_wheel["error"])
    told = mended.probe("import")
    assert told["error"] is None
    assert told["modules"] == ["magenta", "magenta.version"]
    assert told["version"] == "1.1.7"
    assert told["path"] == str(mended.package)

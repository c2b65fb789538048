"""Each patch fixes its problem in Magenta's own programs, alone and together with all others.

The tests also run the published Magenta, to show the problem.
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

pytestmark = pytest.mark.oracle

HOP = 512  # samples per frame
CHANNELS = 16  # channels of an encoding
PROGRESS = re.compile(
    r"Sample: (\d+)/(\d+) \((\d+\.\d)%, (\d+\.\d) samples/s, (\d+):(\d\d):(\d\d) left\)"
)


def fixed_by(number: str) -> pytest.MarkDecorator:
    """Run a test with this patch alone, and with all patches."""
    return pytest.mark.parametrize("fixed", [number, "patched"], indirect=True)


@pytest.fixture
def encodings(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that saves encodings with these numbers of frames and returns flags."""

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
    """Return a function that writes silent notes and returns flags."""

    def record(count: int, batch: int | None = None) -> list[str]:
        folder = tmp_path / "notes"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            soundfile.write(folder / f"{number}.wav", np.zeros(HOP), 16_000)
        flags = [f"--source_path={folder}", f"--save_path={tmp_path}"]
        return [*flags, f"--batch_size={batch or count}"]

    return record


# 0001


@fixed_by("0001")
def test_an_encoding_is_decoded_as_long_as_it_is(
    published: Magenta, fixed: Magenta, encodings: Callable[..., list[str]]
):
    flags = encodings(125, 125)
    (padded,) = published.probe("arguments", *flags)["calls"]
    assert padded["frames"] == [64_000, 64_000]
    assert padded["silent_frames"] == [64_000 - 125] * 2
    (call,) = fixed.probe("arguments", *flags)["calls"]
    assert call["frames"] == [125, 125]
    assert call["silent_frames"] == [0, 0]
    assert call["first_frame"] == padded["first_frame"] == [[1.0] * CHANNELS, [2.0] * CHANNELS]


@pytest.mark.parametrize(("samples", "frames"), [(512, 1), (513, 2), (60_000, 118), (99_999, 125)])
def test_sample_length_is_in_samples_and_truncates(
    patched: Magenta, encodings: Callable[..., list[str]], samples: int, frames: int
):
    (call,) = patched.probe("arguments", *encodings(125), f"--sample_length={samples}")["calls"]
    assert call["frames"] == [frames]
    assert call["silent_frames"] == [0]


def test_the_published_sample_length_is_in_frames(
    published: Magenta, encodings: Callable[..., list[str]]
):
    (call,) = published.probe("arguments", *encodings(125), "--sample_length=60000")["calls"]
    assert call["frames"] == [60_000]


def test_encodings_of_different_lengths_are_an_error_that_names_the_files(
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
    assert call["frames"] == [2, 2], "truncated to the same length, they form a batch"


# 0002


@fixed_by("0002")
def test_embeddings_keep_the_names_of_their_notes(
    published: Magenta, fixed: Magenta, tmp_path: Path
):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("windfx_60.wav", "viola_w.wav", "vava.wav", "drum.v1.wav", "oboe_72.WAV"):
        soundfile.write(notes / name, np.zeros(HOP), 16_000, format="WAV")
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.with_name("model.ckpt.index").touch()  # the only check before encoding

    def names(magenta: Magenta) -> set[str]:
        embeddings = tmp_path / magenta.package.parent.name
        flags = [f"--source_path={notes}", f"--save_path={embeddings}", f"--sample_length={HOP}"]
        result = magenta.probe("save-embeddings", *flags, f"--checkpoint_path={checkpoint}")
        assert result["error"] is None
        return {path.name.removesuffix("_embeddings.npy") for path in embeddings.iterdir()}

    assert names(published) == {"indfx_60", "iola_", "", "drum.v1", "oboe_72.WAV"}
    assert names(fixed) == {"windfx_60", "viola_w", "vava", "drum.v1", "oboe_72"}


# 0003


def probed_progress(magenta: Magenta, notes: Callable[..., list[str]], steps: int, seconds: float):
    """Decode two clips of `steps` steps that take `seconds` each.

    Returns the times of the log lines, the lines, and how often each was written.
    """
    flags = [*notes(2), f"--sample_length={steps}", f"--seconds={seconds}"]
    result = magenta.probe("generate", *flags)
    times, lines = zip(*result["lines"], strict=True)
    return np.array(times), list(lines), result["stderr"].count("Sample: ") / len(lines)


@fixed_by("0003")
def test_progress_has_total_rate_and_time_left(
    published: Magenta, fixed: Magenta, notes: Callable[..., list[str]]
):
    steps, seconds = 5 * HOP, 0.05
    _, before, written = probed_progress(published, notes, steps, seconds)
    assert before == [f"Sample: {step}" for step in range(0, steps, 100)]
    assert written == 2, "by TensorFlow and by absl"

    times, lines, written = probed_progress(fixed, notes, steps, seconds)
    assert written == 1
    matches = [PROGRESS.fullmatch(line) for line in lines]
    assert all(matches)
    done = np.array([int(match[1]) for match in matches])
    np.testing.assert_allclose(done * seconds, times - 1000)
    assert done[-1] == steps
    for match, count in zip(matches, done, strict=True):
        assert int(match[2]) == steps
        assert float(match[3]) == pytest.approx(100 * count / steps, abs=0.051)
        assert float(match[4]) == pytest.approx(1 / seconds), "the batch's, not the clips'"
        hours, minutes, rest = (int(match[i]) for i in (5, 6, 7))
        left = 3600 * hours + 60 * minutes + rest
        assert left == pytest.approx((steps - count) * seconds, abs=1)


def test_a_time_left_of_days_is_in_hours(patched: Magenta, notes: Callable[..., list[str]]):
    _, lines, _ = probed_progress(patched, notes, HOP, 3600.0)
    assert lines[0].endswith("left)")
    assert PROGRESS.fullmatch(lines[0])[5] == str(HOP - 2)


@pytest.mark.parametrize("seconds", [0.05, 0.7])
def test_progress_is_frequent_at_first_and_rare_later(
    patched: Magenta, notes: Callable[..., list[str]], seconds: float
):
    times, _, _ = probed_progress(patched, notes, 5 * HOP, seconds)
    times -= 1000 + seconds  # the end of the first step
    gaps = np.diff(times[:-1], prepend=0.0)
    early = times[:-1] < 60
    at_most_a_step_late = seconds + 1e-6
    assert (gaps[early] >= 2 - 1e-6).all()
    assert (gaps[early] <= 2 + at_most_a_step_late).all()
    assert (gaps[~early] >= 10 - 1e-6).all()
    assert (gaps[~early] <= 10 + at_most_a_step_late).all()


# 0004


@fixed_by("0004")
def test_the_jobs_gpus_are_respected(
    published: Magenta, fixed: Magenta, encodings: Callable[..., list[str]]
):
    flags = encodings(2)
    (call,) = published.probe("arguments", *flags, gpus="2,3")["calls"]
    assert call["gpus"] == "0"
    (call,) = fixed.probe("arguments", *flags, gpus="2,3")["calls"]
    assert call["gpus"] == "2,3"


@pytest.mark.parametrize(
    ("jobs", "number", "gpu"),
    [
        ("2,3", [1], "3"),
        ("GPU-8932f937,GPU-1f5a3b6c", [1], "GPU-1f5a3b6c"),
        ("", [], ""),
    ],
)
def test_a_gpu_number_selects_one_of_the_jobs_gpus(
    patched: Magenta, encodings: Callable[..., list[str]], jobs: str, number: list, gpu: str
):
    flags = [*encodings(2), *(f"--gpu_number={i}" for i in number)]
    (call,) = patched.probe("arguments", *flags, gpus=jobs)["calls"]
    assert call["gpus"] == gpu


def test_a_gpu_number_outside_of_the_job_is_an_error(
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
def test_without_a_job_the_gpu_is_unchanged(
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


@fixed_by("0005")
def test_clips_are_saved_only_at_the_end_by_default(
    published: Magenta, fixed: Magenta, notes: Callable[..., list[str]]
):
    steps = 20 * HOP
    flags = [*notes(2), f"--sample_length={steps}"]
    assert 10_000 < steps < 2 * 10_000
    # Magenta silently ignores unknown flags.
    before = published.probe("generate", *flags, "--samples_per_save=4000")
    assert before["saves"] == [1, 10_001, steps]
    assert fixed.probe("generate", *flags)["saves"] == [steps]
    requested = fixed.probe("generate", *flags, "--samples_per_save=4000")
    assert requested["saves"] == [1, 4001, 8001, steps]


# 0006


@fixed_by("0006")
def test_index_256_is_never_sampled(published: Magenta, fixed: Magenta, tmp_path: Path):
    mass = np.random.default_rng(6).dirichlet(np.full(256, 0.2), 4000).astype(np.float32)
    mass[:500, 200:] = 0
    mass[:500] *= 0.99999  # like the float32 sum of a softmax, but more often
    uniform = np.random.default_rng(7).random(4000)
    uniform[::5] = 1 - 2.0**-53  # NumPy's largest random number
    np.savez(tmp_path / "arrays.npz", mass=mass, uniform=uniform)
    flag = f"--arrays={tmp_path / 'arrays.npz'}"
    before = np.array(published.probe("draw", flag)["codes"])
    after = np.array(fixed.probe("draw", flag)["codes"])
    wrong = before == 256
    assert wrong.sum() > 300
    assert wrong[:500].sum() >= 100
    assert after.max() <= 255
    assert (after[:500] < 200).all(), "no code with zero probability"
    assert (mass[np.arange(4000), after] > 0).all()
    np.testing.assert_array_equal(after[~wrong], before[~wrong])


# 0007


def probed_codes(magenta: Magenta, notes: Callable[..., list[str]], *flags: str) -> list:
    """Decode three clips, two at a time; return the codes of each clip."""
    source = notes(3, batch=2)
    result = magenta.probe("generate", *source, f"--sample_length={HOP}", *flags)
    assert result["exit"] == 0
    folder = Path(source[1].removeprefix("--save_path="))
    clips = [soundfile.read(folder / f"gen_{i}.wav", dtype="float32")[0] for i in range(3)]
    return [np.searchsorted(AMPLITUDES, clip).tolist() for clip in clips]


def test_published_runs_are_not_reproducible(published: Magenta, notes: Callable[..., list[str]]):
    seventh = probed_codes(published, notes, "--seed=7")
    assert seventh != probed_codes(published, notes, "--seed=7"), "the flag is silently ignored"


@fixed_by("0007")
def test_a_seed_makes_runs_reproducible(fixed: Magenta, notes: Callable[..., list[str]]):
    seventh = probed_codes(fixed, notes, "--seed=7")
    assert seventh == probed_codes(fixed, notes, "--seed=7")
    assert probed_codes(fixed, notes) not in (seventh, probed_codes(fixed, notes))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_random_numbers_are_numpys_legacy_stream_across_all_batches(
    patched: Magenta, notes: Callable[..., list[str]], seed: int
):
    stream = np.random.RandomState(seed)
    pair = np.stack([stream.rand(2) for _ in range(HOP)])
    single = np.stack([stream.rand(1) for _ in range(HOP)])
    uniforms = [pair[:, 0], pair[:, 1], single[:, 0]]
    cumulative = np.arange(1, 257) / 256  # the probe's equal probabilities
    expected = [np.searchsorted(cumulative, uniform).tolist() for uniform in uniforms]
    assert probed_codes(patched, notes, f"--seed={seed}") == expected


# 0008


@fixed_by("0008")
def test_import_magenta_imports_only_its_version(fixed: Magenta, tmp_path: Path):
    published = Magenta(copy_magenta(tmp_path)).probe("import")
    assert re.match("ImportError: No module named", published["error"])
    result = fixed.probe("import")
    assert result["error"] is None
    assert result["modules"] == ["magenta", "magenta.version"]
    assert result["version"] == "1.1.7"
    assert result["path"] == str(fixed.package)

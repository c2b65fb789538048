"""The reader of TensorFlow's format, compared with TensorFlow and given damaged files."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import PUBLISHED, infer_dimensions
from nsynth_super.wavenet.magenta_format import (
    DATA,
    INDEX,
    PUBLISHED_BYTES,
    PUBLISHED_INDEX_SHA256,
    PUBLISHED_NAME,
    file_of,
)
from nsynth_super.wavenet.tensor_bundle import (
    LARGEST_INDEX,
    DamagedError,
    Entry,
    Extent,
    read_index,
    read_tensor,
)
from tests import tensor_bundles
from tests.conftest import SMALL
from tests.tensor_bundles import entry, header, message, number, table

WEIGHTS = random.weights(SMALL, 5)
ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    "a/Adam": np.zeros((3, 4), np.float64),
    "step": np.array(7, np.int64),
    "nothing": np.zeros((0, 5), np.float32),
}


def tensors(prefix: Path) -> dict[str, np.ndarray]:
    data = Extent.of(file_of(prefix, DATA))
    with data.path.open("rb") as file:
        entries = read_index(Extent.of(file_of(prefix, INDEX)))
        return {name: read_tensor(data, file, entry) for name, entry in entries.items()}


def index_of(folder: Path, content: bytes) -> dict[str, Entry]:
    path = folder / "x.index"
    path.write_bytes(content)
    return read_index(Extent.of(path))


def test_what_is_written_is_read(tmp_path: Path):
    prefix = tensor_bundles.save(ARRAYS, tmp_path / "model", slots=False)
    read = tensors(prefix)
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


def _tensorflow(script: str, *arguments: Path) -> None:
    """Run a script of this folder; TensorFlow and Triton crash in one process."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra: pip install -e '.[oracle]'")
    program = Path(__file__).with_name(script)
    subprocess.run([sys.executable, program, *arguments], check=True)


@pytest.mark.process
@pytest.mark.slow
def test_a_checkpoint_that_tensorflow_has_saved_is_read(tmp_path: Path):
    checkpoint.save(WEIGHTS, tmp_path / "weights.safetensors", "test")
    prefix = tmp_path / "model"
    _tensorflow("tensorflow_checkpoint.py", tmp_path / "weights.safetensors", prefix)
    read = tensors(prefix)
    slots = ("ExponentialMovingAverage", "Adam", "Adam_1")
    assert set(read) == {
        "global_step",
        *WEIGHTS,
        *(f"{name}/{slot}" for name in WEIGHTS for slot in slots),
    }
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(read[name], array)
        np.testing.assert_array_equal(read[f"{name}/Adam"], 2 * array)


@pytest.mark.process
@pytest.mark.slow
def test_tensorflow_reads_what_the_tests_write(tmp_path: Path):
    """So the damaged files of these tests differ from real ones only by their damage."""
    prefix = tensor_bundles.save(WEIGHTS, tmp_path / "model")
    _tensorflow("tensorflow_reader.py", prefix, tmp_path / "read.npz")
    with np.load(tmp_path / "read.npz") as read:
        for name, array in tensors(prefix).items():
            np.testing.assert_array_equal(read[name], array)


GOOD = {b"": header(), b"a": entry(ARRAYS["a"], 0)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"<html>not here</html>" * 10, "does not end like a TensorFlow index"),
        (table({**GOOD, b"": header(shards=2)}), "belongs to 2 data files"),
        (table({**GOOD, b"": header(endianness=1)}), "is big-endian"),
        (table(GOOD, compression=1), "is compressed"),
        (table({**GOOD, b"b": b"\x0b"}), "has a field of an unknown kind"),
        (table({**GOOD, b"b": message(2, b"x")[:-1]}), "has a field that does not end"),
        (table({**GOOD, b"b": b"\xff" * 20}), "has a number that does not end"),
        (table(GOOD)[1:], "has a block"),
    ],
)
def test_a_wrong_index_is_an_error(tmp_path: Path, content: bytes, reason: str):
    with pytest.raises(DamagedError, match=reason):
        index_of(tmp_path, content)


def test_a_huge_file_is_not_read_as_an_index(tmp_path: Path):
    with (tmp_path / "x.index").open("wb") as file:
        file.truncate(LARGEST_INDEX + 1)
    with pytest.raises(DamagedError, match="which no index has"):
        read_index(Extent.of(tmp_path / "x.index"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (entry(ARRAYS["a"].astype(np.float16), 0), "type that is not supported"),
        (entry(ARRAYS["a"], 0) + message(7, b""), "type that is not supported"),
        (entry(ARRAYS["a"], 0) + number(5, 20), "has 20 bytes, but its shape 24"),
        (entry(ARRAYS["a"], 1), "ends before byte 25"),
        (entry(ARRAYS["a"], 2**62), "ends before byte"),
        (entry(ARRAYS["a"] + 1, 0), "do not have the checksum"),
    ],
)
def test_an_entry_that_the_data_file_contradicts_is_an_error(
    tmp_path: Path, wrong: bytes, reason: str
):
    (tmp_path / "x.data").write_bytes(ARRAYS["a"].tobytes())
    data = Extent.of(tmp_path / "x.data")
    found = index_of(tmp_path, table({b"": header(), b"a": wrong}))["a"]
    with data.path.open("rb") as file, pytest.raises(DamagedError, match=reason):
        read_tensor(data, file, found)


@given(st.data())
def test_any_change_of_an_index_is_found_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    """A block has a checksum; what it does not cover are the footer and its padding."""
    folder = tmp_path_factory.mktemp("index")
    content = bytearray(
        table(
            {b"": header(), **{f"v{i}".encode(): entry(ARRAYS["a"], i) for i in range(9)}},
            per_block=4,
        )
    )
    good = index_of(folder, bytes(content))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    with suppress(DamagedError):
        assert index_of(folder, bytes(content)) == good


@pytest.mark.published
def test_the_published_index_has_the_models_variables():
    folder = os.environ.get("NSYNTH_PUBLISHED")
    if not folder:
        pytest.skip("needs $NSYNTH_PUBLISHED, a folder with the published checkpoint's index")
    index = Path(folder, PUBLISHED_NAME + INDEX)
    assert hashlib.sha256(index.read_bytes()).hexdigest() == PUBLISHED_INDEX_SHA256
    assert index.stat().st_size == PUBLISHED_BYTES[INDEX]
    entries = read_index(Extent.of(index))
    assert len(entries) == 1495
    shapes = {name: entry.shape for name, entry in entries.items()}
    assert infer_dimensions(shapes) == (PUBLISHED, [])
    assert {entries[name].dtype for name in PUBLISHED.shapes()} == {"<f4"}
    ends = sorted(entry.offset + entry.size for entry in entries.values())
    assert sorted(entry.offset for entry in entries.values()) == [0, *ends[:-1]]
    assert ends[-1] == PUBLISHED_BYTES[DATA]

"""Finding, verifying, converting and downloading the model's weights."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base.errors import BadInput
from nsynth_super.wavenet import checkpoint, download, magenta_format, random
from nsynth_super.wavenet.checkpoint import load, save, verified
from nsynth_super.wavenet.magenta_format import DATA, INDEX, Verified, file_of
from nsynth_super.wavenet.tensor_bundle import Extent, read_index
from tests import tensor_bundles
from tests.conftest import SMALL

WEIGHTS = random.weights(SMALL, 5)


@pytest.fixture(scope="module")
def tensorflow_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TensorFlow checkpoint as training writes it: with slots, averages and a step."""
    folder = tmp_path_factory.mktemp("tf") / "wavenet-ckpt"
    return tensor_bundles.save(WEIGHTS, folder / magenta_format.PUBLISHED_NAME)


def packed(prefix: Path, destination: Path, *names: str) -> Path:
    with tarfile.open(destination, "w") as tar:
        for name in names or (".index", ".data-00000-of-00001"):
            file = prefix.with_name(prefix.name + name)
            tar.add(file, f"wavenet-ckpt/{file.name}")
    return destination


def test_saved_weights_load_unchanged(tmp_path: Path):
    save(WEIGHTS, tmp_path / "a.safetensors", "test")
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.dimensions == SMALL
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_the_hash_depends_on_the_weights_and_not_on_the_file(tmp_path: Path):
    save(WEIGHTS, tmp_path / "a.safetensors", "one source")
    save(dict(reversed(WEIGHTS.items())), tmp_path / "b.safetensors", "another source")
    hashes = {load(tmp_path / f"{name}.safetensors").sha256 for name in "ab"}
    assert len(hashes) == 1
    other = {**WEIGHTS, "logits/biases": WEIGHTS["logits/biases"] + 1}
    assert verified(other, "x").sha256 not in hashes


@pytest.mark.parametrize(
    "form", ["tar", "prefix", "index", "data", "folder", "folder of a tar", "parent"]
)
def test_a_tensorflow_checkpoint_is_found_by_any_of_its_paths(
    tensorflow_prefix: Path, tmp_path: Path, form: str
):
    tar = packed(tensorflow_prefix, tmp_path / "wavenet-ckpt.tar")
    path = {
        "prefix": tensorflow_prefix,
        "index": Path(f"{tensorflow_prefix}.index"),
        "data": Path(f"{tensorflow_prefix}.data-00000-of-00001"),
        "folder": tensorflow_prefix.parent,
        "parent": tensorflow_prefix.parent.parent,
        "tar": tar,
        "folder of a tar": tar.parent,
    }[form]
    loaded = load(path)
    assert loaded.dimensions == SMALL
    assert loaded.sha256 == verified(WEIGHTS, "original").sha256


def test_a_checkpoint_is_converted_once(
    tensorflow_prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path))
    load(tensorflow_prefix)
    monkeypatch.setattr(magenta_format, "read", lambda found: pytest.fail("read again"))
    load(tensorflow_prefix)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert not list(tmp_path.glob(".*"))


def test_optimizer_slots_are_not_read(tensorflow_prefix: Path):
    assert set(magenta_format.read(tensorflow_prefix)) == set(SMALL.shapes())


def test_a_tar_of_two_checkpoints_is_refused(tensorflow_prefix: Path, tmp_path: Path):
    tar = packed(tensorflow_prefix, tmp_path / "a.tar")
    with tarfile.open(tar, "a") as archive:
        for ending in (INDEX, DATA):
            file = file_of(tensorflow_prefix, ending)
            archive.add(file, f"another/{file.name}")
    with pytest.raises(BadInput, match="contains 2 checkpoints, expected one"):
        load(tar)


def test_a_truncated_index_or_data_file_is_a_one_line_error(
    tensorflow_prefix: Path, tmp_path: Path
):
    copy = tmp_path / tensorflow_prefix.name
    for ending, message in ((DATA, r"\d+ damaged variables: \w+"), (INDEX, r"its \.index file ")):
        for each in (INDEX, DATA):
            shutil.copy(file_of(tensorflow_prefix, each), file_of(copy, each))
        os.truncate(file_of(copy, ending), file_of(copy, ending).stat().st_size // 2)
        with pytest.raises(BadInput, match=message) as bad:
            load(copy)
        assert len(str(bad.value).splitlines()) == 1
        assert "-> download or copy it again" in str(bad.value)


def test_a_flipped_bit_is_found(tensorflow_prefix: Path, tmp_path: Path):
    tar = packed(tensorflow_prefix, tmp_path / "a.tar")
    with tarfile.open(tar) as archive:
        [at] = [m.offset_data for m in archive if m.name.endswith(DATA)]
    entry = read_index(Extent.of(file_of(tensorflow_prefix, INDEX)))["logits/biases"]
    content = bytearray(tar.read_bytes())
    content[at + entry.offset + 5] ^= 1
    tar.write_bytes(content)
    with pytest.raises(BadInput, match=r"1 damaged variables: logits/biases: values do not have"):
        load(tar)


def test_a_truncated_tar_is_an_error(tensorflow_prefix: Path, tmp_path: Path):
    tar = packed(tensorflow_prefix, tmp_path / "a.tar")
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"invalid \.tar file"):
        load(tar)


def test_verify_finds_damage_that_the_model_does_not_use(
    tensorflow_prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tar = packed(tensorflow_prefix, tmp_path / "a.tar")
    index = file_of(tensorflow_prefix, INDEX)
    entries = read_index(Extent.of(index))
    for found in (tensorflow_prefix, tar):
        assert magenta_format.verify(found) == Verified(False, len(entries))
    monkeypatch.setattr(
        magenta_format, "PUBLISHED_INDEX_SHA256", hashlib.sha256(index.read_bytes()).hexdigest()
    )
    assert magenta_format.verify(tar).is_published
    with tarfile.open(tar) as archive:
        [at] = [m.offset_data for m in archive if m.name.endswith(DATA)]
    content = bytearray(tar.read_bytes())
    content[at + entries["logits/biases/Adam"].offset] ^= 1
    tar.write_bytes(content)
    magenta_format.read(tar)
    with pytest.raises(BadInput, match="1 damaged variables: logits/biases/Adam"):
        magenta_format.verify(tar)


def _sparse_tar(path: Path) -> Path:
    """Write a sparse .tar file with members of the published sizes."""
    with path.open("wb") as file:
        for ending, size in magenta_format.PUBLISHED_BYTES.items():
            member = tarfile.TarInfo(f"wavenet-ckpt/model.ckpt-200000{ending}")
            member.size = size
            file.write(member.tobuf())
            file.seek(-(-size // 512) * 512, 1)
        file.write(bytes(1024))
    return path


def test_the_published_checkpoint_is_recognized_by_its_file_sizes(tmp_path: Path):
    prefix = tmp_path / "model.ckpt-200000"
    for ending, size in magenta_format.PUBLISHED_BYTES.items():
        with Path(f"{prefix}{ending}").open("wb") as file:
            file.truncate(size)
    assert magenta_format.has_published_sizes(prefix)
    assert magenta_format.has_published_sizes(_sparse_tar(tmp_path / "wavenet-ckpt.tar"))
    with Path(f"{prefix}.index").open("ab") as file:
        file.write(b"x")
    assert not magenta_format.has_published_sizes(prefix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"res_1/W": None}, "res_1/W: missing from the checkpoint"),
        ({"res_1/W": np.zeros((1, 1, 5, 5), np.float32)}, "has shape [1, 1, 5, 5]"),
        ({"res_1/W": WEIGHTS["res_1/W"].astype(np.float64)}, "has dtype float64"),
        ({"res_1/W": WEIGHTS["res_1/W"] * np.nan}, "contains NaN or infinity"),
    ],
)
def test_the_error_names_the_problem_of_a_variable(change: dict[str, Any], message: str):
    weights = {k: v for k, v in {**WEIGHTS, **change}.items() if v is not None}
    with pytest.raises(BadInput) as bad:
        verified(weights, "x")
    assert message in str(bad.value)


def test_the_problems_of_another_model_are_abbreviated():
    with pytest.raises(BadInput) as bad:
        verified({"foo/W": np.zeros(3, np.float32)}, "x")
    assert len(bad.value.problems) == 9


def test_a_truncated_safetensors_file_is_an_error(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save(WEIGHTS, path, "test")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match="invalid safetensors file"):
        load(path)


def test_the_error_without_a_checkpoint_names_the_command_to_download_one():
    with pytest.raises(BadInput, match="checkpoint fetch"):
        load(None)


def test_several_checkpoints_in_a_folder_are_listed(tmp_path: Path):
    for name in "ab":
        save(WEIGHTS, tmp_path / f"{name}.safetensors", "test")
    with pytest.raises(BadInput, match=r"a\.safetensors, b\.safetensors"):
        load(tmp_path)


def _tar_of_noise(size: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("wavenet-ckpt/noise")
        member.size = size - 20_000
        noise = np.random.default_rng(0).integers(0, 256, member.size, dtype=np.uint8)
        tar.addfile(member, io.BytesIO(noise.tobytes()))
    return file.getvalue().ljust(size, b"\0")[:size]


class _Mirror(http.server.BaseHTTPRequestHandler):
    content = _tar_of_noise(3_000_000)
    break_after: int | None = None
    ranges = True
    requested: list[str | None] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).requested.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if self.path == "/none":
            self.send_error(404)
            return
        if start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = start + self.break_after if self.break_after else None
        self.wfile.write(self.content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Mirror)
    _Mirror.break_after, _Mirror.ranges, _Mirror.requested = None, True, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_interrupted_download_resumes(mirror: str, tmp_path: Path):
    destination = tmp_path / "wavenet-ckpt.tar"
    _Mirror.break_after = 1_200_000
    with pytest.raises(BadInput, match=r"stopped at 1,\d{3},\d{3} bytes"):
        download.fetch(f"{mirror}/x", destination, lambda done, total: None)
    assert not destination.exists()
    safe = download.partial_of(f"{mirror}/x", destination).stat().st_size
    _Mirror.break_after = None
    seen: list[tuple[int, int]] = []
    download.fetch(f"{mirror}/x", destination, lambda done, total: seen.append((done, total)))
    assert destination.read_bytes() == _Mirror.content
    assert _Mirror.requested[-1] == f"bytes={safe}-"
    assert seen[-1] == (3_000_000, 3_000_000)
    record = destination.with_suffix(".json").read_text()
    assert "sha256" in record
    assert mirror in record


def test_a_download_from_a_server_without_ranges_restarts(mirror: str, tmp_path: Path):
    destination = tmp_path / "wavenet-ckpt.tar"
    download.partial_of(f"{mirror}/x", destination).write_bytes(b"old" * 1000)
    _Mirror.ranges = False
    download.fetch(f"{mirror}/x", destination, lambda done, total: None)
    assert destination.read_bytes() == _Mirror.content


def test_a_download_interrupted_before_its_rename_is_not_repeated(mirror: str, tmp_path: Path):
    destination = tmp_path / "wavenet-ckpt.tar"
    download.partial_of(f"{mirror}/x", destination).write_bytes(_Mirror.content)
    download.fetch(f"{mirror}/x", destination, lambda done, total: None)
    assert destination.read_bytes() == _Mirror.content
    assert len(_Mirror.requested) == 1


def test_a_complete_download_is_not_repeated(mirror: str, tmp_path: Path):
    for _ in range(2):
        download.fetch(f"{mirror}/x", tmp_path / "wavenet-ckpt.tar", lambda done, total: None)
    assert len(_Mirror.requested) == 1


def test_a_web_page_instead_of_a_tar_is_rejected(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_Mirror, "content", b"<html>not here</html>" * 100)
    with pytest.raises(BadInput, match=r"is not a \.tar file"):
        download.fetch(f"{mirror}/x", tmp_path / "wavenet-ckpt.tar", lambda done, total: None)
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == []


def test_the_error_for_a_missing_file_names_the_mirror_option(mirror: str, tmp_path: Path):
    with pytest.raises(BadInput, match=r"404.*--url"):
        download.fetch(f"{mirror}/none", tmp_path / "a.tar", lambda done, total: None)


def test_the_downloaded_checkpoint_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path))
    assert checkpoint.default_path() is None
    checkpoint.fetched_path().write_bytes(b"")
    assert checkpoint.default_path() == tmp_path / "wavenet-ckpt.tar"
    monkeypatch.setenv("NSYNTH_CHECKPOINT", "/elsewhere")
    assert checkpoint.default_path() == Path("/elsewhere")


def test_convert_verifies_and_copies_a_safetensors_file(
    small_checkpoint: Path, tmp_path: Path, command
) -> None:
    """The image build relies on it, because it converts checkpoints of any format."""
    copy = tmp_path / "copy.safetensors"
    assert command("checkpoint", "convert", small_checkpoint, copy).returncode == 0
    assert checkpoint.load(copy).sha256 == checkpoint.load(small_checkpoint).sha256
    copy.write_bytes(copy.read_bytes()[:-100])
    broken = command("checkpoint", "convert", copy, tmp_path / "never.safetensors")
    assert broken.returncode == 2
    assert not (tmp_path / "never.safetensors").exists()

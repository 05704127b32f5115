"""Sizes are compared with what a file of its kind can have before anything is read."""

from __future__ import annotations

import json
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tiny_bundle import make_without_model, manifest

from edgeformer_runtime.bundle import manifest as manifest_file
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import FileEntry
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.bundle.vectors import TensorFile
from edgeformer_runtime.errors import BundleError

BIG = (4 << 30) - 1


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("tokenizer.json", 64 << 20),
        ("vectors/cases.json", 16 << 20),
        ("vectors/tensors.safetensors", 1 << 30),
        ("vectors/a.png", 128 << 20),
        ("report.json", 64 << 20),
        ("model.bin", (2 << 30) - 1),
        ("notes/LICENSE", 256 << 20),
    ],
)
def test_each_kind_of_file_has_its_limit(name: str, most: int) -> None:
    valid = replace(manifest(), files={name: FileEntry("0" * 64, most)})
    manifest_file.check_sizes(valid)
    with pytest.raises(BundleError, match=f"{name}: expected at most {most} bytes, found {most + 1}"):
        manifest_file.check_sizes(replace(valid, files={name: FileEntry("0" * 64, most + 1)}))


@pytest.mark.parametrize("name", ["tokenizer.json", "vectors/cases.json", "model.bin", "notes.txt"])
def test_a_sparse_file_of_four_gigabytes_is_not_hashed(name: str, tmp_path: Path) -> None:
    folder = make_without_model(tmp_path / "tiny")
    path = folder / name
    path.touch()
    os.truncate(path, BIG)
    data = json.loads((folder / "manifest.json").read_text())
    data["files"][name] = {"sha256": "0" * 64, "size": BIG}
    (folder / "manifest.json").write_text(json.dumps(data))
    begun = time.process_time()
    with pytest.raises(BundleError, match=f"^{name}: (expected at most|most of its)"):
        Bundle.open(folder)
    os.truncate(path, 200 << 20)
    if name in ("model.bin", "notes.txt"):
        data["files"][name]["size"] = 200 << 20
        (folder / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(BundleError, match="never written"):
            Bundle.open(folder)
    assert time.process_time() - begun < 5


def test_a_sparse_zip_is_not_hashed(tmp_path: Path) -> None:
    folder = make_without_model(tmp_path / "tiny")
    data = json.loads((folder / "manifest.json").read_text())
    size = 80 << 20
    data["files"]["notes.txt"] = {"sha256": "0" * 64, "size": size}
    packed = tmp_path / "sparse.zip"
    with zipfile.ZipFile(packed, "w") as target:
        target.writestr("manifest.json", json.dumps(data))
        for name in data["files"]:
            if name != "notes.txt":
                target.write(folder / name, name)
        target.writestr(zipfile.ZipInfo("notes.txt"), bytes(size))
    holes = tmp_path / "holes.zip"
    with packed.open("rb") as source, holes.open("wb") as copy:
        while block := source.read(1 << 20):
            if block.strip(b"\0"):
                copy.write(block)
            else:
                copy.seek(len(block), os.SEEK_CUR)
    with pytest.raises(BundleError, match="never written"):
        Bundle.open(holes)


def written(tmp_path: Path, data: bytes) -> TensorFile:
    path = tmp_path / "t.safetensors"
    path.write_bytes(data)
    return TensorFile(path, "t")


def test_tensors_are_read_as_safetensors_does(tmp_path: Path) -> None:
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1, -2], np.int32),
        "c": np.array(7, np.uint8),
    }
    file = written(tmp_path, save(tensors, metadata={"own": "text"}))
    assert sorted(file.names) == ["a", "b", "c"]
    for name, tensor in tensors.items():
        found = file.take(TensorSpec(name, str(tensor.dtype), tensor.shape))
        np.testing.assert_array_equal(found, tensor)
        assert found.dtype == tensor.dtype
        assert found.flags.writeable
    assert file.names == []


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, 4, "not those of its shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, 8, "starts at 4, expected 0"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 8, "end at 4 of 8 bytes"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4, "end at 8 of 4 bytes"),
        ({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, 4, "starts at 0, expected 4"),
        ({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, 4, "expected numbers"),
        ({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, 4, "not those of its shape"),
        ({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, 2, "expected one of F32"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, 4, "expected one of F32"),
        ({"a": [0, 4]}, 4, "expected dtype, shape and data_offsets"),
        ([], 0, "no object"),
    ],
)
def test_headers_that_lie(header: object, size: int, message: str, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(BundleError, match=message):
        written(tmp_path, len(text).to_bytes(8, "little") + text + bytes(size))


@pytest.mark.parametrize("length", [0, 1 << 20, 100 << 20, 1 << 63])
def test_a_header_longer_than_the_file(length: int, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^t: "):
        written(tmp_path, length.to_bytes(8, "little") + b"{}")
    with pytest.raises(BundleError, match=r"^t: "):
        written(tmp_path, b"abc")

"""Corrupted and hostile bundles: each is refused with one clear line, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.errors import BundleError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A temporary folder of the test's own, empty again when the test ends."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def refused(path: Path) -> str:
    """The message with which a bundle is refused: one line."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 600
    return message


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest as JSON, without any check."""
    document = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    change(document)
    (folder / MANIFEST_NAME).write_text(json.dumps(document), encoding="utf-8")


# Folders


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.bin").read_bytes())
    data[100] ^= 1
    (folder / "model.bin").write_bytes(data)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_flip, "model.bin: its SHA-256 differs"),
        (lambda f: (f / "tokenizer.json").unlink(), "'tokenizer.json' is missing"),
        (lambda f: (f / MANIFEST_NAME).unlink(), "no manifest.json"),
        (lambda f: (f / "vectors" / "more.txt").write_text("x"), "extra file 'vectors/more.txt'"),
        (lambda f: (f / "empty").mkdir(), "'empty' is an empty folder"),
        (lambda f: os.truncate(f / "model.bin", 257), "expected 256 bytes as in the manifest, found 257"),
        (lambda f: edit(f, lambda m: m["files"]["model.bin"].update(sha256="f" * 64)), "its SHA-256 differs"),
        (lambda f: ((f / "model.bin").unlink(), os.mkfifo(f / "model.bin")), "is not a plain file"),
    ],
)
def test_files_that_are_not_the_manifests(tiny: Path, change: Callable[[Path], object], problem: str) -> None:
    change(tiny)
    assert problem in refused(tiny)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_file_managers_leave_is_passed_over_in_folders_alone(tiny: Path, tmp_path: Path, name: str) -> None:
    for folder in (tiny, tiny / "vectors"):
        (folder / name).write_bytes(b"\0" * 6148)
    with Bundle.open(tiny) as bundle:
        assert not [file for file in bundle.members() if name in file]
    pack(tiny, tmp_path / "tiny.zip")
    with zipfile.ZipFile(tmp_path / "tiny.zip", "a", zipfile.ZIP_STORED) as archive:
        assert not [file for file in archive.namelist() if name in file]
        archive.writestr(name, b"x")
    assert f"extra file {name!r}" in refused(tmp_path / "tiny.zip")


@pytest.mark.parametrize(
    "name", [".ds_store", "thumbs.db", "Desktop.ini", "._manifest.json", ".DS_Store.bin", "ehthumbs.db"]
)
def test_files_of_other_names_are_not_passed_over(tiny: Path, name: str) -> None:
    (tiny / name).write_bytes(b"x")
    assert f"extra file {name!r}: the manifest does not list it: delete it if a program left it there" in refused(tiny)


def test_what_file_managers_leave_is_a_plain_file(tiny: Path) -> None:
    (tiny / ".DS_Store").symlink_to(tiny / MANIFEST_NAME)
    assert "'.DS_Store' is a symbolic link" in refused(tiny)
    (tiny / ".DS_Store").unlink()
    (tiny / "more").mkdir()
    (tiny / "more" / ".DS_Store").write_bytes(b"x")
    assert "'more' is an empty folder" in refused(tiny)


@pytest.mark.parametrize("target", ["tokenizer.json", "/etc/passwd", "nowhere"])
def test_symbolic_link(tiny: Path, target: str) -> None:
    (tiny / "model.bin").unlink()
    (tiny / "model.bin").symlink_to(target)
    assert "'model.bin' is a symbolic link" in refused(tiny)


def test_symbolic_link_to_a_folder(tiny: Path, tmp_path: Path) -> None:
    (tiny / "vectors").rename(tmp_path / "vectors")
    (tiny / "vectors").symlink_to(tmp_path / "vectors")
    assert "'vectors' is a symbolic link" in refused(tiny)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../outside.bin", "points outside"),
        ("vectors/../../outside.bin", "points outside"),
        ("/etc/passwd", "points outside"),
        ("C:/model.bin", "points outside"),
        ("C:model.bin", "points outside"),
        ("vectors\\model.bin", "points outside"),
        ("\\\\server\\share", "points outside"),
        ("model\0.bin", "control character"),
        ("model.bin\n", "control character"),
        ("", "not portable"),
        (".", "not portable"),
        ("a//b", "not portable"),
        ("./a", "not portable"),
        ("a/", "not portable"),
        ("mödel.bin", "not portable"),
        ("a b", "not portable"),
        ("nul.txt", "not portable"),
        ("trailing.", "not portable"),
        ("a" * 256, "too long"),
        ("/".join("a" * 17), "too long"),
        ("Model.bin", "are the same on some file systems"),
        ("VECTORS/x", "are the same on some file systems"),
        ("Manifest.JSON", "are the same on some file systems"),
        ("model.bin/x", "both a file and a folder"),
    ],
)
def test_names_in_the_manifest(tiny: Path, name: str, problem: str) -> None:
    edit(tiny, lambda m: m["files"].update({name: m["files"]["model.bin"]}))
    assert problem in refused(tiny)


def test_future_version(tiny: Path) -> None:
    edit(tiny, lambda m: m.update(format_version=2, something_new={}))
    message = refused(tiny)
    assert "made by a newer version (2), this runtime reads 1: upgrade edgeformer-runtime" in message


def test_newer_runtime_required(tiny: Path) -> None:
    edit(tiny, lambda m: (m["requires"].update(runtime="99.0.0"), m.update(task="smell-classification")))
    assert "needs edgeformer-runtime 99.0.0 or newer" in refused(tiny)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.update(extra=1), "unknown key 'extra': expected only attention"),
        (lambda m: m["programs"][1].update(extra=1), "programs[1]: unknown key 'extra'"),
        (lambda m: m.pop("license"), "the key 'license' is missing"),
        (lambda m: m.update(format_version=0), "format_version: expected 1, found 0"),
        (lambda m: m.update(format_version=1.0), "format_version: expected int, found 1.0"),
        (lambda m: m.update(format_version=True), "format_version: expected 1, found True"),
        (lambda m: m.update(target="abacus"), "target: expected one of litert, coreml, executorch, onnx"),
        (
            lambda m: m.update(task="x"),
            "task: expected one of text-classification, text-embedding, text-scoring, ",
        ),
        (lambda m: m.update(task="text-embedding"), "postprocessing.kind: expected 'embedding'"),
        (lambda m: m.update(name="../x"), "name: expected text like"),
        (lambda m: m.update(name="x\n"), "control character"),
        (lambda m: m["files"]["model.bin"].update(size=-1), "files.model.bin.size: minimum is 0"),
        (lambda m: m["files"]["model.bin"].update(size=1 << 40), "files.model.bin.size: maximum is 4294967295"),
        (lambda m: m["files"]["model.bin"].update(size=256.0), "expected int, found 256.0"),
        (lambda m: m["files"]["model.bin"].update(sha256="F" * 64), "files.model.bin.sha256: expected text like"),
        (lambda m: m["files"].pop("vectors/cases.json"), "belong together"),
        (lambda m: m["programs"][0].update(file="other.bin"), "'other.bin' is neither a file nor a folder"),
        (
            lambda m: m["programs"][0].update(file="vectors"),
            "a Core ML model is a folder, any other a file",
        ),
        (lambda m: m["programs"][0].update(file="../model.bin"), "points outside"),
        (lambda m: m["programs"][0].update(name="seq_16"), "program 'seq_16' occurs twice"),
        (lambda m: m["programs"][0].update(name="answer"), "this name is reserved"),
        (lambda m: m["programs"][0]["inputs"][0].update(dtype="float99"), "inputs[0].dtype: expected one of float32"),
        (lambda m: m["programs"][0]["inputs"][0].update(dtype="float32"), "in int32"),
        (lambda m: m["programs"][0]["inputs"][0].update(shape=[2, 8]), "one shape (1, S)"),
        (lambda m: m["programs"][0]["inputs"][1].update(shape=[1, 9]), "one shape (1, S)"),
        (lambda m: m["programs"][0]["inputs"][1].update(name="pixels"), "unknown input 'pixels'"),
        (lambda m: m["programs"][0]["inputs"][1].update(name="input_ids"), "occurs twice"),
        (lambda m: m["programs"][0]["outputs"][0].update(shape=[1, 4]), "one float32 output of shape (1, 3)"),
        (lambda m: m["programs"][0]["inputs"].pop(0), "unknown|input_ids"),
        (lambda m: m.update(programs=[]), "programs: minItems is 1"),
        (lambda m: m["preprocessing"].update(tokenizer="t.json"), "'t.json' is not among files"),
        (lambda m: m["preprocessing"].update(pad_token_id=12), "not below vocab_size"),
        (lambda m: m["preprocessing"].update(kind="smell"), "preprocessing.kind: expected one of text, image"),
        (lambda m: m["preprocessing"].update(kind="image"), "preprocessing: unknown key 'pad_token_id'"),
        (lambda m: m["preprocessing"].pop("kind"), "preprocessing: the key 'kind' is missing"),
        (lambda m: m.update(task="image-classification"), "preprocessing.kind: expected 'image'"),
        (lambda m: m["postprocessing"].update(labels=["a", "a", "b"]), "the label 'a' occurs twice"),
        (lambda m: m["postprocessing"].update(kind="poem"), "postprocessing.kind: expected one of classification"),
        (lambda m: m["postprocessing"].update(dim=3), "postprocessing: unknown key 'dim'"),
        (lambda m: m["requires"].update(runtime="0.1"), "requires.runtime: expected text like"),
        (lambda m: m.update(files=[]), "files: expected object, found []"),
    ],
)
def test_manifest_values(tiny: Path, change: Callable[[dict], object], problem: str) -> None:
    edit(tiny, change)
    message = refused(tiny)
    assert message.startswith(("manifest.json: ", "file name "))
    assert any(part in message for part in problem.split("|"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "expected object, found []"),
        (b"null", "expected object, found None"),
        (b"\xff\xfe{}", "expected UTF-8 text"),
        (b'{"name": "a", "name": "b"}', "the key 'name' occurs twice"),
        (b'{"name": NaN}', "NaN is not JSON"),
        (b'{"name": -Infinity}', "-Infinity is not JSON"),
        (b'{"name": 1e999}', "out of range"),
        (b'{"name": ' + b"9" * 5000 + b"}", "is out of range"),
        (b'{"name": ' + b"9" * 309 + b"}", "is out of range"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b"[" * 40 + b"]" * 40, "nested deeper"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b" " * (4 << 20) + b"{}", "at most 4194304 bytes"),
    ],
)
def test_manifest_text(tiny: Path, text: bytes, problem: str) -> None:
    (tiny / MANIFEST_NAME).write_bytes(text)
    assert problem in refused(tiny)


def test_duplicate_key_in_a_real_manifest(tiny: Path) -> None:
    text = (tiny / MANIFEST_NAME).read_text(encoding="utf-8")
    (tiny / MANIFEST_NAME).write_text(text.replace('"name": "tiny"', '"name": "tiny", "name": "other"'))
    assert "the key 'name' occurs twice" in refused(tiny)


@pytest.mark.parametrize("path", ["nowhere", "a\0b"])
def test_no_such_path(path: str) -> None:
    assert "no bundle at" in refused(Path(path))


# Zips


@pytest.fixture
def packed(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.zip"
    pack(tiny, path)
    return path


def rewrite(packed: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], object]) -> None:
    """Write the zip anew, member by member, as `change` likes."""
    with zipfile.ZipFile(packed) as source:
        members = [(member, source.read(member)) for member in source.infolist()]
    with zipfile.ZipFile(packed, "w") as target:
        for member, data in members:
            change(target, member, data)


@pytest.mark.parametrize("kept", [0, 10, 21, 0.3, 0.9, -1, -30])
def test_truncated_zip(packed: Path, kept: float) -> None:
    data = packed.read_bytes()
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    packed.write_bytes(data[:end])
    assert "truncated" in refused(packed)


def test_zip_with_the_start_cut_off(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[1000:])
    refused(packed)


def test_flipped_byte_in_a_zip(packed: Path) -> None:
    data = packed.read_bytes()
    at = data.index(bytes(range(256))) + 7
    packed.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    assert "model.bin" in refused(packed)


def test_compressed_member(packed: Path) -> None:
    rewrite(packed, lambda target, member, data: target.writestr(member.filename, data, zipfile.ZIP_DEFLATED))
    assert "is compressed: expected a stored zip" in refused(packed)


def test_bomb_of_zeros(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("zeros.bin", bytes(64 << 20))
    assert packed.stat().st_size < 1 << 20
    assert "'zeros.bin' is compressed" in refused(packed)


def test_bomb_of_overlapping_members(packed: Path) -> None:
    """Many directory entries that share one stored member, so that a small file unpacks to a large one."""
    data = packed.read_bytes()
    with zipfile.ZipFile(packed) as source:
        model = source.getinfo("model.bin")
    entries = b""
    for index in range(200):
        name = f"m{index:08d}".encode()
        entries += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", 20, 20, 0, 0, 0, 33, model.CRC, 1 << 20, 1 << 20),
            *(len(name), 0, 0, 0, 0, 0, model.header_offset),
        )
        entries += name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 200, 200, len(entries), len(data), 0)
    packed.write_bytes(data + entries + end)
    assert "zip bomb" in refused(packed)


def test_size_in_the_directory_is_a_lie(packed: Path) -> None:
    data = packed.read_bytes()
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.bin"))
    lie = struct.pack("<2L", (4 << 30) - 1, (4 << 30) - 1)
    packed.write_bytes(data[: at + 20] + lie + data[at + 28 :])
    assert "zip bomb" in refused(packed)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "a\\b", "C:/evil", "evil\0.txt", "vectors/../../evil", "évil", "evil\n"]
)
def test_unsafe_name_in_a_zip(packed: Path, name: str) -> None:
    rewrite(packed, lambda target, member, data: target.writestr(member.filename, data))
    placeholder = "X" * len(name.encode())
    with zipfile.ZipFile(packed, "a") as target:
        target.writestr(placeholder, b"evil")
    packed.write_bytes(packed.read_bytes().replace(placeholder.encode(), name.encode()))
    assert "file name" in refused(packed)


def test_symbolic_link_in_a_zip(packed: Path) -> None:
    def link(target: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> None:
        if member.filename == "model.bin":
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            data = b"/etc/passwd"
        target.writestr(member, data)

    rewrite(packed, link)
    assert "'model.bin' is a link or device" in refused(packed)


def test_duplicate_member(packed: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(packed, "a") as target:
        target.writestr("model.bin", b"other")
    assert "'model.bin' occurs twice" in refused(packed)


def test_members_that_differ_in_case(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as target:
        target.writestr("MODEL.bin", b"other")
    assert "are the same on some file systems" in refused(packed)


def test_encrypted_member(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    packed.write_bytes(data)
    assert "is encrypted" in refused(packed)


def test_folder_entry(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as target:
        target.writestr("vectors/", b"")
    assert "folder entry" in refused(packed)


def test_extra_and_missing_member(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as target:
        target.writestr("more.txt", b"x")
    assert "extra file 'more.txt'" in refused(packed)
    rewrite(packed, lambda target, member, data: "s.j" in member.filename or target.writestr(member, data))
    assert "extra file" in refused(packed)


def test_zip_of_the_folder_itself(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "nested.zip"
    with zipfile.ZipFile(path, "w") as target:
        for file in tiny.rglob("*"):
            if file.is_file():
                target.write(file, file.relative_to(tiny.parent).as_posix())
    assert "it has no manifest.json at its root" in refused(path)


def test_too_many_members(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as target:
        for index in range(10_001):
            target.writestr(f"x{index}", b"")
    assert "at most 10000 files" in refused(packed)


def test_no_zip_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(random.Random(0).randbytes(5000))
    assert "not a bundle's zip" in refused(path)


def test_every_mutation_is_refused(packed: Path, tiny: Path) -> None:
    """No change of a single byte of a zip, or cut, gives anything but the same content or a clear error."""
    good = packed.read_bytes()
    generator = random.Random(1)
    survivors = 0
    for _ in range(400):
        data = bytearray(good)
        at = generator.randrange(len(data))
        data[at] ^= 1 << generator.randrange(8)
        packed.write_bytes(data)
        try:
            with Bundle.open(packed) as bundle:
                survivors += 1
                for name in bundle.manifest.files:
                    assert bundle.read_bytes(name) == (tiny / name).read_bytes()
        except BundleError as error:
            assert "\n" not in str(error)
    # Dates and version fields of the headers mean nothing to the reader; the rest is covered by checks.
    assert survivors < 120


def test_every_mutation_of_a_manifest_is_refused_or_harmless(tiny: Path) -> None:
    good = (tiny / MANIFEST_NAME).read_bytes()
    generator = random.Random(2)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(generator.randrange(1, 4)):
            at = generator.randrange(len(data))
            data[at : at + generator.randrange(0, 3)] = generator.randbytes(generator.randrange(0, 3))
        (tiny / MANIFEST_NAME).write_bytes(data)
        try:
            Bundle.open(tiny).close()
        except BundleError as error:
            assert "\n" not in str(error)

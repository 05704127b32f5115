"""Opening and packing valid bundles."""

from __future__ import annotations

import gc
import hashlib
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bundle import LABELS, manifest, seal

from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import FileEntry, TextPreprocessing, parse
from edgeformer_runtime.errors import BundleError, InputError


def test_folder(tiny: Path) -> None:
    with Bundle.open(str(tiny)) as bundle:
        assert bundle.manifest.postprocessing.labels == LABELS
        assert bundle.path("model.bin") == tiny / "model.bin"
        assert bundle.read_bytes("model.bin") == bytes(range(256))
        assert bundle.size_bytes == sum(f.stat().st_size for f in tiny.rglob("*") if f.is_file()) - (
            (tiny / "manifest.json").stat().st_size
        )
        assert bundle.model_size_bytes == 256
        with pytest.raises(BundleError, match="no file 'other'"):
            bundle.path("other")
        with pytest.raises(BundleError, match="no file"):
            bundle.path("../tiny/model.bin")


def test_size_of_a_model_in_several_files(tiny: Path) -> None:
    """As ONNX has it: programs name small files, which share one of weights."""
    (tiny / "weights.data").write_bytes(bytes(1000))
    (tiny / "report.json").write_text("{}")
    seal(tiny, manifest())
    with Bundle.open(tiny) as bundle:
        assert bundle.model_size_bytes == 1256


def test_link_to_the_bundle_itself_is_the_users_business(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(tiny)
    Bundle.open(tmp_path / "latest").close()


def test_zip_is_unpacked_privately_and_removed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    pack(tiny, tmp_path / "tiny.zip")
    bundle = Bundle.open(tmp_path / "tiny.zip")
    folder = bundle.path("model.bin").parent
    assert folder.parent.parent == temporary
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    assert bundle.read_bytes("vectors/cases.json") == (tiny / "vectors" / "cases.json").read_bytes()
    Bundle.open(folder).close()  # what was unpacked is a whole bundle
    bundle.close()
    bundle.close()
    assert not folder.exists()
    forgotten = Bundle.open(tmp_path / "tiny.zip")
    folder = forgotten.path("model.bin").parent
    del forgotten
    gc.collect()
    assert not folder.exists()


def test_zip_bytes_depend_on_the_files_alone(tiny: Path, tmp_path: Path) -> None:
    pack(tiny, tmp_path / "a.zip")
    for file in tiny.rglob("*"):
        file.chmod(0o700)
        file.touch()
    pack(tiny, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o100644}
        assert {member.extra for member in archive.infolist()} == {b""}


def test_zip_replaces_an_older_one_and_leaves_nothing_after_an_error(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tiny.zip").write_bytes(b"older")
    (tiny / "extra").write_bytes(b"")
    with pytest.raises(BundleError, match="extra file"):
        pack(tiny, out / "tiny.zip")
    assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [("tiny.zip", b"older")]
    (tiny / "extra").unlink()
    pack(tiny, out / "tiny.zip")
    assert [file.name for file in out.iterdir()] == ["tiny.zip"]
    with pytest.raises(InputError, match=r"cannot write into .*nowhere"):
        pack(tiny, tmp_path / "nowhere" / "tiny.zip")
    with pytest.raises(InputError, match="expected a bundle's folder to pack, found a file"):
        pack(out / "tiny.zip", out / "again.zip")
    with pytest.raises(InputError, match="is a folder: expected the zip's own name"):
        pack(tiny, out)
    assert [file.name for file in out.iterdir()] == ["tiny.zip"]


def test_zip_of_another_tool(tiny: Path, tmp_path: Path) -> None:
    """Extra fields, dates and any order of members are allowed; only what the reader relies on is checked."""
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for file in sorted(tiny.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, file.relative_to(tiny).as_posix())
    Bundle.open(tmp_path / "other.zip").close()


def test_manifest_round_trip_is_canonical(tiny: Path) -> None:
    text = (tiny / "manifest.json").read_text(encoding="utf-8")
    parsed = parse(text)
    assert parsed.to_json() == text
    assert text.endswith("}\n")
    assert parsed == parse(text)
    listed = parsed.files["model.bin"]
    assert listed == FileEntry(hashlib.sha256(bytes(range(256))).hexdigest(), 256)


def test_writer_refuses_what_the_reader_would(tiny: Path) -> None:
    good = parse((tiny / "manifest.json").read_text(encoding="utf-8"))
    with pytest.raises(BundleError, match="target: expected one of"):
        replace(good, target="abacus").to_json()
    with pytest.raises(BundleError, match="expected integer, found 'x'"):
        replace(good, preprocessing=TextPreprocessing(None, "x")).to_json()  # type: ignore[arg-type]


def test_model_in_a_folder(tmp_path: Path) -> None:
    """A Core ML package is a folder: the program names the folder, the manifest lists its files."""
    package = tmp_path / "apple" / "model.mlpackage" / "Data" / "com.apple.CoreML"
    package.mkdir(parents=True)
    (package / "model.mlmodel").write_bytes(b"123")
    (package / "weight.bin").write_bytes(b"4567")
    unsealed = manifest("coreml", model="model.mlpackage")
    unsealed = replace(unsealed, preprocessing=TextPreprocessing(None, pad_token_id=0))
    seal(tmp_path / "apple", unsealed)
    with Bundle.open(tmp_path / "apple") as bundle:
        assert bundle.path("model.mlpackage").is_dir()
        assert bundle.model_size_bytes == 7
    pack(tmp_path / "apple", tmp_path / "apple.zip")
    with Bundle.open(tmp_path / "apple.zip") as bundle:
        assert (bundle.path("model.mlpackage") / "Data" / "com.apple.CoreML" / "weight.bin").read_bytes() == b"4567"


def test_newer_versions_are_compared_by_number() -> None:
    unsealed = replace(manifest(), preprocessing=TextPreprocessing(None, 0))
    text = replace(unsealed, files={"model.bin": FileEntry("0" * 64, 1)}).to_json()
    for version, accepted in (("0.0.99", True), ("0.1.0", True), ("0.1.1", False), ("0.10.0", False), ("1.0.0", False)):
        changed = text.replace('"runtime": "0.1.0"', f'"runtime": "{version}"')
        if accepted:
            assert parse(changed).requires.runtime == version
        else:
            with pytest.raises(BundleError, match=f"needs edgeformer-runtime {version} or newer, this is 0.1.0"):
                parse(changed)

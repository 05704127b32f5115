"""Signed bundles: a changed byte anywhere is refused where a signature is required; what is checked is what is used."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import random
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, FileEntry, parse
from edgeformer_runtime.bundle.signature import (
    DOMAIN,
    RELEASE_FILE,
    SIGNATURE_NAME,
    Requirement,
    fingerprint,
)
from edgeformer_runtime.errors import BundleError, InputError

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

SECRET = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC: bytes = SECRET.public_key().public_bytes_raw()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A temporary folder of the test's own, empty again when the test ends."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def signed(tiny: Path) -> Path:
    """A signed folder, with nothing but the specification to go by."""
    message = b"edgeformer-bundle-manifest-1\n" + (tiny / "manifest.json").read_bytes()
    (tiny / "manifest.sig").write_bytes(SECRET.sign(message))
    return tiny


@pytest.fixture
def signed_zip(signed: Path, tmp_path: Path) -> Path:
    pack(signed, tmp_path / "signed.zip")
    return tmp_path / "signed.zip"


def pem_of(key: object, path: Path) -> Path:
    path.write_bytes(
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    )
    return path


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, require_signature=PUBLIC)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_and_zip(signed: Path, signed_zip: Path, tmp_path: Path) -> None:
    key = pem_of(SECRET.public_key(), tmp_path / "key.pub")
    for path in (signed, signed_zip):
        for required in (PUBLIC, key, str(key)):
            with Bundle.open(path, required) as bundle:
                assert bundle.signature.to_json() == {"state": "valid", "key": fingerprint(PUBLIC)}
                assert bundle.read_bytes("model.bin") == bytes(range(256))
        with Bundle.open(path) as bundle:
            assert bundle.signature.to_json() == {"state": "unchecked", "key": None}


def test_unsigned(tiny: Path) -> None:
    with Bundle.open(tiny) as bundle:
        assert bundle.signature.to_json() == {"state": "unsigned", "key": None}
    assert "a signature is required, and the bundle has none" in refused(tiny)


def test_every_byte_of_every_file_counts(signed: Path) -> None:
    generator = random.Random(0)
    for file in sorted(path for path in signed.rglob("*") if path.is_file()):
        good = file.read_bytes()
        places = range(len(good)) if file.name == SIGNATURE_NAME else generator.sample(range(len(good)), 12)
        for at in places:
            data = bytearray(good)
            data[at] ^= 1 << generator.randrange(8)
            file.write_bytes(data)
            refused(signed)
        for other in (good[:-1], good + b"\0", b""):
            file.write_bytes(other)
            refused(signed)
        file.write_bytes(good)
    Bundle.open(signed, PUBLIC).close()


def test_every_byte_of_a_zip_counts(signed_zip: Path) -> None:
    """Dates and other fields too, that mean nothing to a reader."""
    good = signed_zip.read_bytes()
    with zipfile.ZipFile(signed_zip) as archive:
        headers = [
            member.header_offset + at for member in archive.infolist() for at in range(30 + len(member.filename))
        ]
        directory = range(archive.start_dir, len(good))
    places = [*random.Random(1).sample(headers, 120), *random.Random(2).sample(directory, 200)]
    places += random.Random(3).sample(range(len(good)), 100)
    for at in places:
        data = bytearray(good)
        data[at] ^= 1 << (at % 8)
        signed_zip.write_bytes(data)
        refused(signed_zip)
    signed_zip.write_bytes(good)
    Bundle.open(signed_zip, PUBLIC).close()


def test_other_manifest_with_matching_hashes(signed: Path) -> None:
    text = (signed / MANIFEST_NAME).read_text(encoding="utf-8")
    (signed / MANIFEST_NAME).write_text(text.replace('"lights"', '"lamps"'), encoding="utf-8")
    assert "the bundle was changed after it was signed, or signed with another key" in refused(signed)
    (signed / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")  # the same values in other bytes
    refused(signed)


def test_the_signature_is_checked_before_the_manifest_is_parsed(signed: Path) -> None:
    (signed / MANIFEST_NAME).write_text("[" * 1000)
    assert "not a signature of this manifest" in refused(signed)


def test_another_key_and_no_signature_at_all(signed: Path) -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    with pytest.raises(BundleError, match=f"by the key {fingerprint(other)[:16]}"):
        Bundle.open(signed, other)
    (signed / SIGNATURE_NAME).unlink()
    refused(signed)


@pytest.mark.parametrize("name", ["extra.txt", "vectors/extra.txt", "MANIFEST.SIG", "manifest.sig.sig"])
def test_added_file(signed: Path, name: str) -> None:
    (signed / name).write_bytes(b"x")
    assert f"extra file '{name}'" in refused(signed)


def test_added_member(signed_zip: Path) -> None:
    with zipfile.ZipFile(signed_zip, "a") as archive:
        archive.writestr("extra.txt", b"x")
    assert "extra file 'extra.txt'" in refused(signed_zip)


def test_zip_with_room_for_more(signed: Path, tmp_path: Path) -> None:
    """A reader takes other orders and dates; one that requires a signature takes the writer's bytes alone."""
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((f for f in signed.rglob("*") if f.is_file()), reverse=True):
            archive.write(file, file.relative_to(signed).as_posix())
    Bundle.open(path).close()
    assert "holds other bytes than its signed files give: pack it again" in refused(path)


def test_what_is_checked_is_what_is_used(signed: Path) -> None:
    """Files that change while a bundle is open do not reach whoever required a signature."""
    with Bundle.open(signed, PUBLIC) as bundle:
        (signed / "model.bin").write_bytes(b"evil" * 64)
        assert bundle.read_bytes("model.bin") == bytes(range(256))
        folder = bundle.path("model.bin").parent
        assert folder != signed
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_signature_listed_in_the_manifest(signed: Path) -> None:
    text = (signed / MANIFEST_NAME).read_text(encoding="utf-8")
    for name in (SIGNATURE_NAME, "Manifest.Sig"):
        listed = text.replace(
            '"model.bin": {',
            f'"{name}": {{\n      "sha256": "{"0" * 64}",\n      "size": 64\n    }},\n    "model.bin": {{',
            1,
        )
        (signed / MANIFEST_NAME).write_text(listed, encoding="utf-8")
        with pytest.raises(BundleError, match="the same on some file systems"):
            Bundle.open(signed)


@pytest.mark.parametrize("size", [0, 63, 65, 5000])
def test_size_of_an_unchecked_signature(signed: Path, size: int) -> None:
    (signed / SIGNATURE_NAME).write_bytes(bytes(size))
    with pytest.raises(BundleError, match=r"manifest\.sig: expected"):
        Bundle.open(signed)


def test_packing_keeps_the_signature(signed: Path, signed_zip: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(signed_zip) as archive:
        assert archive.read(SIGNATURE_NAME) == (signed / SIGNATURE_NAME).read_bytes()
        archive.extractall(tmp_path / "unpacked")
    Bundle.open(tmp_path / "unpacked", PUBLIC).close()


def test_keys_that_cannot_be_used(signed: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.pem"
    secret.write_bytes(
        SECRET.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    corrupted = pem_of(SECRET.public_key(), tmp_path / "corrupted.pub")
    corrupted.write_bytes(corrupted.read_bytes()[:60])
    other = pem_of(rsa.generate_private_key(65537, 1024).public_key(), tmp_path / "rsa.pub")
    for key, problem in (
        (secret, "this is a private key"),
        (corrupted, "expected a PEM file of an Ed25519 public key"),
        (signed / "tokenizer.json", "expected a PEM file"),
        (other, "found another kind"),
        (tmp_path / "nowhere", "cannot read the public key"),
        ("a\0b", "cannot read the public key"),
        (b"short", "expected 32 bytes"),
    ):
        with pytest.raises(InputError, match=problem):
            Bundle.open(signed, key)


def test_without_the_package(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    Bundle.open(signed).close()
    with pytest.raises(InputError, match=r"pip install 'edgeformer-runtime\[trust\]'"):
        Bundle.open(signed, PUBLIC)


def test_the_package_is_not_imported_unasked(signed: Path) -> None:
    import subprocess

    script = f"import sys; from edgeformer_runtime.bundle.bundle import Bundle; Bundle.open({str(signed)!r}).close();"
    script += "print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_load_and_commands(tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeformer_runtime.cli import app
    from edgeformer_runtime.cli.console import run_app

    bundle = Path(shutil.copytree(tiny_onnx, tmp_path / "bundle"))
    key = pem_of(SECRET.public_key(), tmp_path / "key.pub")

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    commands = (
        ("run", bundle, "hello", "--json"),
        ("verify", bundle, "--json"),
        ("inspect", bundle, "--json"),
        ("bench", bundle, "--rounds", "1", "--json"),
    )
    for command in commands:
        code, out, err = call(*command, "--require-signature", key)
        assert (code, out) == (2, "")
        assert "a signature is required" in err
    with pytest.raises(BundleError):
        load(bundle, require_signature=key)

    manifest = (bundle / MANIFEST_NAME).read_bytes()
    (bundle / SIGNATURE_NAME).write_bytes(SECRET.sign(DOMAIN + manifest))
    for command in commands:
        code, out, err = call(*command, "--require-signature", key)
        assert (code, err) == (0, "")
    with load(bundle, require_signature=PUBLIC) as pipeline:
        assert pipeline("hello").labels
    assert "there is one, not checked" in call("inspect", bundle)[1]
    assert f"valid, by the key {fingerprint(PUBLIC)[:16]}" in call("inspect", bundle, "--require-signature", key)[1]


def test_several_keys(signed: Path, tmp_path: Path) -> None:
    """One of them suffices, so that a key can be changed; none at all is no way to require nothing."""
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    new = pem_of(other, tmp_path / "new.pub")
    for keys in ([PUBLIC, new], [new, PUBLIC], (PUBLIC,)):
        with Bundle.open(signed, keys) as bundle:
            assert bundle.signature.checked_by == fingerprint(PUBLIC)
    with pytest.raises(BundleError, match=fingerprint(other.public_bytes_raw())[:16]):
        Bundle.open(signed, [new])
    with pytest.raises(InputError, match="found an empty list"):
        Bundle.open(signed, [])
    for keys in ([new, "nowhere"], [PUBLIC, b"short"]):
        with pytest.raises(InputError):
            Bundle.open(signed, keys)


def released(folder: Path, data: bytes) -> Path:
    """The bundle with a listed release.json of these bytes, signed anew."""
    (folder / RELEASE_FILE).write_bytes(data)
    manifest = parse((folder / MANIFEST_NAME).read_bytes())
    entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    text = dataclasses.replace(manifest, files={**manifest.files, RELEASE_FILE: entry}).to_json()
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    (folder / SIGNATURE_NAME).write_bytes(SECRET.sign(DOMAIN + text.encode()))
    return folder


def test_releases(tiny: Path, tmp_path: Path) -> None:
    folder = released(tiny, b'{\n  "name": "tiny",\n  "version": 3\n}\n')
    pack(folder, tmp_path / "tiny.zip")
    for path in (folder, tmp_path / "tiny.zip"):
        for version in (1, 2, 3):
            with Bundle.open(path, PUBLIC, require_name="tiny", require_version=version) as bundle:
                assert bundle.release == 3
        load_options = {"require_signature": PUBLIC, "require_name": "tiny", "require_version": 4}
        with pytest.raises(BundleError) as caught:
            load(path, **load_options)  # type: ignore[arg-type]
        assert str(caught.value) == (
            "expected 'tiny', release 4 or later, found 'tiny', release 3: get the bundle that is meant"
        )
        with pytest.raises(BundleError, match="expected 'intents', release 2 or later, found 'tiny', release 3"):
            Bundle.open(path, Requirement((PUBLIC,), "intents", 2))
        with pytest.raises(BundleError, match="expected 'intents', found 'tiny', release 3"):
            Bundle.open(path, require_name="intents")


def test_a_bundle_without_release(signed: Path) -> None:
    with Bundle.open(signed, PUBLIC, require_name="tiny") as bundle:
        assert bundle.release is None
    with pytest.raises(BundleError, match="found 'tiny', which has no release"):
        Bundle.open(signed, PUBLIC, require_version=1)
    for version in (0, -1, True, 1 << 53, "3"):
        with pytest.raises(InputError, match="expected the required version"):
            Bundle.open(signed, PUBLIC, require_version=version)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found an empty text"):
        Bundle.open(signed, require_name="")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"name": "tiny", "version": 3}',
        b'{\n  "name": "tiny",\n  "version": 3\n}',
        b'{\n  "name": "tiny",\n  "version": 3\n}\n\n',
        b'{\r\n  "name": "tiny",\r\n  "version": 3\r\n}\r\n',
        b'{\n  "name": "tiny",\n  "version": 0\n}\n',
        b'{\n  "name": "tiny",\n  "version": -3\n}\n',
        b'{\n  "name": "tiny",\n  "version": 03\n}\n',
        b'{\n  "name": "tiny",\n  "version": 3.0\n}\n',
        b'{\n  "name": "tiny",\n  "version": "3"\n}\n',
        b'{\n  "name": "tiny",\n  "version": 9007199254740992\n}\n',
        b'{\n  "name": "tiny",\n  "version": 99999999999999999999\n}\n',
        b'{\n  "name": "other",\n  "version": 3\n}\n',
        b'{\n  "extra": 1,\n  "name": "tiny",\n  "version": 3\n}\n',
        b'{\n  "name": "tiny",\n  "version": 3\n}\n' + bytes(5000),
    ],
)
def test_a_release_in_other_bytes(tiny: Path, data: bytes) -> None:
    """Whether a release is asked for or not."""
    released(tiny, data)
    for required in (None, PUBLIC):
        with pytest.raises(BundleError, match=r"release\.json") as caught:
            Bundle.open(tiny, required)
        assert "\n" not in str(caught.value)


def test_the_greatest_version(tiny: Path) -> None:
    released(tiny, b'{\n  "name": "tiny",\n  "version": 9007199254740991\n}\n')
    Bundle.open(tiny, PUBLIC, require_version=9007199254740991).close()


def test_a_requirement_reaches_another_process() -> None:
    for each in (Requirement(), Requirement((PUBLIC, "a.pub"), "tiny", 3), Requirement(version=1)):
        assert Requirement.from_json(json.loads(json.dumps(each.to_json()))) == each

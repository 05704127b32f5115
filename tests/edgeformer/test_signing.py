"""`edgeformer sign`: keys, signatures of folders and zips, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from edgeformer import cli
from edgeformer.convert.bundle_writer import seal
from edgeformer.signing import make_keys, sign_bundle
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME, read_public_key
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.errors import BundleError, InputError
from tests.runtime.tiny_bundle import make_without_model

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_without_model(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def tiny(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundles" / "tiny"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "release.pem")
    return tmp_path / "release.pem"


def test_keys(key: Path) -> None:
    public = key.with_name("release.pub")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    body = base64.b64decode("".join(public.read_text().splitlines()[1:-1]))
    # As BUNDLE.md tells apps that have no PEM reader.
    assert body[:12].hex() == "302a300506032b6570032100"
    assert body[12:] == read_public_key(public)
    with pytest.raises(InputError, match="exists: expected a new name"):
        make_keys(key)
    with pytest.raises(InputError, match="public key's name"):
        make_keys(public)
    with pytest.raises(InputError, match="No such file"):
        make_keys(key.parent / "nowhere" / "x.pem")


def test_folder_and_zip(tiny: Path, key: Path, tmp_path: Path) -> None:
    packed = tmp_path / "bundles" / "tiny.zip"
    pack(tiny, packed)
    public = key.with_suffix(".pub")
    for path in (tiny, packed):
        with pytest.raises(BundleError, match="the bundle has none"):
            Bundle.open(path, public)
        assert sign_bundle(path, key).fingerprint == hashlib.sha256(read_public_key(public)).hexdigest()
        Bundle.open(path, public).close()
    with zipfile.ZipFile(packed) as archive:
        assert archive.read(SIGNATURE_NAME) == (tiny / SIGNATURE_NAME).read_bytes()
    again = tmp_path / "again.zip"
    pack(tiny, again)
    assert again.read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in packed.parent.iterdir()) == ["tiny", "tiny.zip"]


def test_signing_again(tiny: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(tiny, key)
    first = (tiny / SIGNATURE_NAME).read_bytes()
    sign_bundle(tiny, key)
    assert (tiny / SIGNATURE_NAME).read_bytes() == first
    other = make_keys(tmp_path / "other.pem")
    sign_bundle(tiny, tmp_path / "other.pem")
    Bundle.open(tiny, other).close()
    with pytest.raises(BundleError, match="signed with another key"):
        Bundle.open(tiny, key.with_suffix(".pub"))


def test_a_new_manifest_has_no_signature(tiny: Path, key: Path) -> None:
    sign_bundle(tiny, key)
    with Bundle.open(tiny) as bundle:
        sealed = seal(tiny, bundle.manifest)
    assert sealed.signature.name == "unsigned"


def test_corrupted_bundles_are_not_signed(tiny: Path, key: Path) -> None:
    (tiny / "model.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.bin"):
        sign_bundle(tiny, key)
    assert not (tiny / SIGNATURE_NAME).exists()


def test_keys_that_cannot_sign(tiny: Path, key: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    def pem(kind: type, encryption: serialization.KeySerializationEncryption) -> bytes:
        made: bytes = kind.generate().private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        return made

    corrupted = tmp_path / "corrupted.pem"
    corrupted.touch(0o600)
    for content, problem in (
        (b"", "expected a PEM file of an Ed25519 private key"),
        (key.with_suffix(".pub").read_bytes(), "this is a public key"),
        (pem(x25519.X25519PrivateKey, serialization.NoEncryption()), "found another kind"),
        (pem(ed25519.Ed25519PrivateKey, serialization.BestAvailableEncryption(b"x")), "is encrypted"),
    ):
        corrupted.write_bytes(content)
        with pytest.raises(InputError, match=problem):
            sign_bundle(tiny, corrupted)
    with pytest.raises(InputError, match="cannot read the private key"):
        sign_bundle(tiny, tmp_path / "nowhere.pem")


def test_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(cli.app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    key, public = tmp_path / "release.pem", tmp_path / "release.pub"
    code, out, _ = call("sign", "--new-key", key)
    assert (code, out) == (0, f"{key}: keep it secret; {public}: give it to those who check\n")
    code, out, _ = call("sign", tiny, "--key", key)
    assert (code, out.startswith(f"{tiny}: signed by the key ")) == (0, True)
    code, out, _ = call("inspect", tiny, "--require-signature", public, "--json")
    assert (code, '"state": "valid"' in out) == (0, True)
    data = bytearray((tiny / MANIFEST_NAME).read_bytes())
    data[-1:] = b" "
    (tiny / MANIFEST_NAME).write_bytes(data)
    for command in (("inspect", tiny), ("verify", tiny), ("run", tiny, "hello"), ("bench", tiny)):
        code, out, err = call(*command, "--require-signature", public)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "not a signature of this manifest" in err
    for wrong in (["sign"], ["sign", tiny], ["sign", "--key", key], ["sign", tiny, "--key", key, "--new-key", key]):
        code, _, err = call(*wrong)
        assert (code, err) == (2, "error: expected bundles and --key, or --new-key alone\n")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_does_not_sign(tiny: Path, key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(InputError, match=rf"others can read this private key \(mode {mode:04o}\): chmod 600 "):
        sign_bundle(tiny, key)
    assert not (tiny / SIGNATURE_NAME).exists()
    key.chmod(0o400)
    sign_bundle(tiny, key)


def test_a_release_is_written_into_folder_and_zip(tiny: Path, key: Path, tmp_path: Path) -> None:
    packed = tmp_path / "bundles" / "tiny.zip"
    pack(tiny, packed)
    public = key.with_suffix(".pub")
    weights = (tiny / "model.bin").stat().st_ino
    for path in (tiny, packed):
        assert sign_bundle(path, key, 3).words.endswith(", release 3")
        with Bundle.open(path, public, require_name="tiny", require_version=3) as bundle:
            assert bundle.read_bytes("release.json") == b'{\n  "name": "tiny",\n  "version": 3\n}\n'
        assert sign_bundle(path, key).release == 3, "without a number it stays"
        sign_bundle(path, key, 4)
        Bundle.open(path, public, require_version=4).close()
    again = tmp_path / "again.zip"
    pack(tiny, again)
    assert again.read_bytes() == packed.read_bytes()
    assert (tiny / "model.bin").stat().st_ino == weights, "what stays is not copied"
    assert sorted(path.name for path in packed.parent.iterdir()) == ["tiny", "tiny.zip"]
    for release in (0, 1 << 53):
        with pytest.raises(InputError, match="expected the release as an integer"):
            sign_bundle(tiny, key, release)


def test_releases_and_keys_on_the_command_line(
    tiny: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(cli.app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    public, other = key.with_suffix(".pub"), make_keys(tmp_path / "other.pem")
    code, out, _ = call("sign", tiny, "--key", key, "--release", 2)
    assert (code, out.endswith(", release 2\n")) == (0, True)
    code, out, _ = call("pack", tiny)
    packed = tiny.with_name("tiny.zip")
    assert (code, out.startswith(f"{packed}: ")) == (0, True)
    both = ("--require-signature", other, "--require-signature", public)
    for path in (tiny, packed):
        code, out, _ = call("inspect", path, *both, "--require-name", "tiny", "--require-version", 2, "--json")
        assert (code, '"release": 2' in out) == (0, True)
    commands = (
        ("inspect", tiny),
        ("verify", packed),
        ("run", tiny, "hello"),
        ("bench", tiny),
        ("eval", tiny, "--data", tiny / "manifest.json"),
        ("report", tiny.parent),
        ("serve", tiny, "--port", 0),
    )
    for command in commands:
        if command[0] == "serve":
            pytest.importorskip("fastapi")
            from edgeformer_runtime.cli.app import app

            with pytest.raises(SystemExit) as caught:
                run_app(app, [str(each) for each in (*command, *both, "--require-version", 3)])
            code, err = caught.value.code, capsys.readouterr().err
        else:
            code, _, err = call(*command, *both, "--require-version", 3)
        assert (code, err.count("\n")) == (2, 1), err
        assert "expected 'tiny', release 3 or later, found 'tiny', release 2" in err
    code, _, err = call("run", tiny, "hello", "--require-name", "intents")
    assert (code, err) == (2, "error: expected 'intents', found 'tiny', release 2: get the bundle that is meant\n")
    code, _, err = call("sign", "--new-key", tmp_path / "third.pem", "--release", 3)
    assert (code, err) == (2, "error: expected bundles and --key, or --new-key alone\n")

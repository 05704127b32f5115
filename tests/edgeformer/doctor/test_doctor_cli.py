"""`edgeformer doctor` as a user runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeformer.signing import make_keys, sign_bundle
from edgeformer_runtime.bundle.bundle import pack
from tests.edgeformer.command_server import CommandServer, Ended

pytestmark = pytest.mark.slow


Doctor = Callable[..., Ended]


@pytest.fixture(scope="module")
def doctor() -> Iterator[Doctor]:
    examiners = (f"edgeformer_converters.{target}.examiner" for target in ("coreml", "onnx"))
    server = CommandServer("edgeformer.doctor.examiner", *examiners)
    yield lambda *arguments: server("doctor", *arguments)
    server.close()


def test_the_terminal_shows_operators_programs_findings_and_what_is_fine(
    doctor: Doctor, bundles: dict[str, Path]
) -> None:
    result = doctor(bundles["onnx"], "--runtime", "1.20.1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "ONNX Runtime 1.20.1" in result.stdout
    assert "LayerNormalization" in result.stdout and "seq_16" in result.stdout
    assert "unsigned" in result.stdout and "Why it matters:" in result.stdout and "What to do:" in result.stdout
    (fine,) = [line for line in result.stdout.splitlines() if line.startswith("fine: ")]
    for check in ("integrity", "structure", "operators", "labels", "mask", "tokenizer", "float16"):
        assert check in fine


def test_json_of_a_zip(doctor: Doctor, bundles: dict[str, Path], tmp_path: Path) -> None:
    pack(bundles["onnx"], tmp_path / "tiny.zip")
    result = doctor(tmp_path / "tiny.zip", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {"ok", "name", "runtime", "delegate", "operators", "programs", "findings"}
    assert found["ok"] and found["name"] == "tiny.zip"
    for finding in found["findings"]:
        assert set(finding) == {"check", "severity", "what", "why", "do"}
    assert {"name", "version", "count", "needs", "supported"} == set(found["operators"][0])


def test_exit_codes(doctor: Doctor, bundles: dict[str, Path], tmp_path: Path) -> None:
    assert doctor(bundles["coreml"], "--min-ios", "17").returncode == 1
    for arguments in ([tmp_path], [bundles["onnx"], "--runtime", "new"], [bundles["onnx"], "--min-android-api", "0"]):
        result = doctor(*arguments)
        assert result.returncode == 2
        assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1, result.stderr
    corrupted = tmp_path / "corrupted"
    shutil.copytree(bundles["onnx"], corrupted)
    (corrupted / "tokenizer.json").write_text("{}")
    result = doctor(corrupted, "--json")
    assert result.returncode == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["check"] == "integrity" and "tokenizer.json" in finding["what"]


def test_signatures(doctor: Doctor, bundles: dict[str, Path], tmp_path: Path) -> None:
    signed = tmp_path / "signed"
    shutil.copytree(bundles["onnx"], signed)
    public = make_keys(tmp_path / "key.pem")
    other = make_keys(tmp_path / "other.pem")
    sign_bundle(signed, tmp_path / "key.pem")

    def state(*arguments: str | Path) -> tuple[str, str]:
        findings = json.loads(doctor(signed, "--json", *arguments).stdout)["findings"]
        (finding,) = [each for each in findings if each["check"] == "signature"]
        return finding["severity"], finding["what"]

    assert state() == ("info", "signed, but not checked")
    severity, what = state("--require-signature", public)
    assert severity == "fine" and what.startswith("valid, by the key ")
    severity, what = state("--require-signature", other)
    assert severity == "error" and "not a signature of this manifest" in what

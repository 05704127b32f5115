"""doctor on a speech bundle, whose checkpoint names an alignment head that its decoder does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.doctor.diagnosis import Diagnosis, diagnose
from edgeformer.doctor.examiner import DoctorOptions, Finding, Severity
from tests.checkpoint_factory import save_whisper
from tests.edgeformer.doctor.conftest import edit_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = save_whisper(tmp_path_factory.mktemp("source") / "distilled", decoder_layers=1)
    out = tmp_path_factory.mktemp("dist")
    (row,) = convert(ConvertOptions(str(source), out, targets=("onnx",), audio_seconds=(2.5,)))
    assert row.ok, row.problems
    return row.path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where checkpoints were converted from is remembered in a cache of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def diagnosis(bundle: Path) -> Diagnosis:
    return diagnose(bundle, DoctorOptions())


def of(diagnosis: Diagnosis, check: str) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.check == check]


def test_nothing_has_to_be_repaired(diagnosis: Diagnosis) -> None:
    assert diagnosis.ok, diagnosis.findings
    assert [program.name for program in diagnosis.programs][:3] == ["encode_125", "prefill_125", "decode_125"]
    # 1500 positions of 64 numbers of float32, of two layers' keys and values among others.
    longest = max(diagnosis.programs, key=lambda program: program.activation_bytes)
    assert longest.name.endswith("_1500") and longest.activation_bytes > 1500 * 64 * 4 * 2


def test_a_head_that_the_decoder_does_not_have_is_told(diagnosis: Diagnosis) -> None:
    found = of(diagnosis, "alignment_heads")
    assert {finding.severity for finding in found} == {Severity.WARNING, Severity.FINE}
    assert "1 of 2 alignment heads are beyond the decoder's 1 layers" in found[0].what


def test_values_of_the_shortest_audio_are_seen(diagnosis: Diagnosis) -> None:
    (finding,) = of(diagnosis, "float16")
    assert finding.severity is Severity.FINE
    seen = {program.name: program.largest for program in diagnosis.programs}
    for name in ("encode_125", "prefill_125", "decode_125"):
        largest = seen[name]
        assert largest is not None and 0.1 < largest < 2000
    assert seen["encode_1500"] is None


def test_the_reading_of_tokens_is_compared(diagnosis: Diagnosis) -> None:
    (finding,) = of(diagnosis, "tokenizer")
    assert finding.severity is Severity.FINE and "as the reference does" in finding.what


def test_more_heads_than_there_are(bundle: Path, corrupted: object) -> None:
    def claim(folder: Path) -> None:
        def change(manifest: dict) -> None:
            manifest["postprocessing"]["alignment_heads"] = 9
            for program in manifest["programs"]:
                for tensor in program["outputs"]:
                    if tensor["name"] == "alignment":
                        tensor["shape"][0] = 9

        edit_manifest(folder, change)

    (finding,) = of(diagnose(corrupted(bundle, claim), DoctorOptions()), "alignment_heads")  # type: ignore[operator]
    assert finding.severity is Severity.ERROR
    assert "9 alignment heads" in finding.what and "have 2 heads" in finding.what

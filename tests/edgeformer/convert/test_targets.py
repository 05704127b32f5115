"""The record of every target is complete, and another author's target takes one new file."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from edgeformer.attention import KERNELS
from edgeformer.convert.convert import convert
from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import EXAMPLE, PRECISIONS, ROW, TARGETS, check_target, converter_for, file_format
from edgeformer.doctor.examiner import examiner_for
from edgeformer.models.family import TOKEN_MATMULS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import STATES
from edgeformer_runtime.engines import ENGINES
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import save_mobilebert

TOY = "tests.edgeformer.convert.toy_target:TARGET"
"""What an entry point of another author's package would name."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_record_is_complete(name: str) -> None:
    target = TARGETS[name]
    assert target.name == name
    assert target.format.name in ENGINES
    assert set(target.precisions) <= set(PRECISIONS)
    assert set(target.instead) <= set(PRECISIONS) - set(target.precisions)
    assert set(target.recipes) <= set(target.precisions)
    assert target.attention in KERNELS
    assert target.decoder_state in STATES and target.token_matmul in TOKEN_MATMULS
    assert max(target.audio_seconds) == 30.0
    assert set(target.layer_formats) <= set(FORMATS)
    assert target.activations in (ROW, EXAMPLE, None)
    converter = converter_for(name)
    assert converter.target is target
    assert converter.precisions == target.precisions
    assert file_format(target.format.name) is target.format
    assert all(hasattr(examiner_for(target.format.name), each) for each in ("read", "support", "partitions"))


def test_a_record_imports_no_tool_and_no_torch() -> None:
    code = (
        "import sys; from edgeformer.convert.target import TARGETS; list(TARGETS.values()); "
        "print([name for name in ('torch', 'onnx', 'coremltools', 'executorch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("alias", [alias for target in TARGETS.values() for alias in target.aliases])
def test_an_alias_is_answered_with_its_target(alias: str) -> None:
    (meant,) = (name for name, target in TARGETS.items() if alias in target.aliases)
    with pytest.raises(InputError, match=f"did you mean {meant}"):
        check_target(alias)


def test_an_unknown_format_lists_what_there_is() -> None:
    with pytest.raises(EngineError, match="expected one of litert"):
        file_format("paddle")


@pytest.mark.slow
def test_another_authors_target_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS.entries, "web", TOY)  # type: ignore[attr-defined]
    source = str(save_mobilebert(tmp_path / "checkpoint", num_hidden_layers=1))
    asked = ConvertOptions(source, tmp_path / "out", ("web",), ("fp32", "dynamic-int8"), (16,), name="tiny")
    assert [(row.target, row.path.name) for row in convert(asked) if row.ok] == [
        ("web", "tiny.web.fp32"),
        ("web", "tiny.web.dynamic-int8"),
    ]
    with Bundle.open(tmp_path / "out" / "tiny.web.fp32") as bundle:
        assert bundle.manifest.target == "onnx"
        assert bundle.manifest.requires.runtime == "0.1.0" and bundle.manifest.requires.ios is None
        assert verify(bundle).ok
    with pytest.raises(InputError, match="web has no int4: a browser would take"):
        ConvertOptions(source, tmp_path / "out", ("web",), ("int4",))


def test_entry_points_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(group: str) -> list[EntryPoint]:
        return [EntryPoint("web", TOY, group), EntryPoint("onnx", TOY, group)]

    monkeypatch.setattr("importlib.metadata.entry_points", found)
    assert [*TARGETS] == ["litert", "coreml", "executorch", "onnx", "web"]
    assert TARGETS["web"].name == "web" and TARGETS["onnx"].name == "onnx"
    assert "web" in TARGETS and len(TARGETS) == 5


@pytest.mark.parametrize("options", [{"window": "full"}, {"audio_seconds": (5.0,)}])
def test_options_of_speech_are_refused_elsewhere(options: dict[str, Any]) -> None:
    asked = ConvertOptions("x", Path("o"), **options)
    asked.check_for("speech-recognition")
    with pytest.raises(InputError, match=r" for (speech|audio), and the task is text-embedding: leave it out"):
        asked.check_for("text-embedding")

"""Distillation into approximate attention: the checkpoint names the kernel, and the student learns to live with it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.attention import KERNELS, AttentionKernel, kernels
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_whisper, tokenizer
from tests.edgeformer.compress import tiny

pytestmark = pytest.mark.slow
RECIPE = """
seq_len = 16
[[step]]
kind = "distill"
student = { attention_kernel = "linear" }
loss = { logits = 1.0, %s = 1.0, temperature = 1.0 }
training = { epochs = 40, batch_size = 4, learning_rate = 1e-3 }
"""


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> AttentionKernel:
    """Two means in place of all keys, in tests' short texts."""
    kernel = partial(kernels.linear, segments=2)
    monkeypatch.setattr(kernels, "linear", kernel)
    return kernel


def answers(folder: Path, kernel: AttentionKernel) -> Tensor:
    """Scores (12, 3) for the sentences of training."""
    module, _ = load_module(open_checkpoint(str(folder)), kernel)
    rows = [tokenizer().encode(text).ids for texts in tiny.SENTENCES.values() for text in texts]
    with torch.no_grad():
        logits = [
            module(torch.tensor([row]).int(), torch.ones(1, len(row)).int(), torch.zeros(1, len(row)).int())[0]
            for row in rows
        ]
    return F.log_softmax(torch.cat(logits), dim=-1)


def test_a_student_learns_to_answer_with_means(coarse: AttentionKernel, tmp_path: Path) -> None:
    data = tiny.save_texts(tmp_path / "texts.json")
    teacher = tiny.run(
        tiny.save_bert(tmp_path / "source", initializer_range=0.4), tiny.FINETUNE, data, tmp_path / "teacher" / "out"
    ).path
    student = tiny.run(teacher, RECIPE % "hidden", data, tmp_path / "student" / "out")
    (results,) = (step["results"] for step in student.report["steps"])
    assert results["tensors_from_teacher"] == results["tensors"]
    assert json.loads((student.path / "config.json").read_text())["attention_kernel"] == "linear"
    expected = answers(teacher, KERNELS["dense"])
    before, after = (
        float(F.kl_div(answers(folder, coarse), expected, log_target=True, reduction="batchmean"))
        for folder in (teacher, student.path)
    )
    assert after < 0.5 * before
    (row,) = convert(ConvertOptions(str(student.path), tmp_path / "dist", ("onnx",), seq_lens=(16,)))
    assert row.ok
    with Bundle.open(row.path) as bundle:
        assert bundle.manifest.attention == "linear"
        assert b"which it was distilled into" in bundle.read_bytes("report.json")
    asked = ConvertOptions(str(student.path), tmp_path / "exact", ("onnx",), seq_lens=(16,), attention="dense")
    with Bundle.open(convert(asked)[0].path) as bundle:
        assert bundle.manifest.attention == "dense"
        assert b"the model was distilled into linear: it answers otherwise" in bundle.read_bytes("report.json")


def test_means_have_no_maps(tmp_path: Path) -> None:
    data = tiny.save_texts(tmp_path / "texts.json")
    with pytest.raises(InputError, match="approximate attention has no maps to compare: leave attention out"):
        tiny.run(tiny.save_bert(tmp_path / "source"), RECIPE % "attention", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_config_names_approximate_kernels_only(tmp_path: Path) -> None:
    folder = tiny.save_bert(tmp_path / "source", attention_kernel="dense")
    with pytest.raises(InputError, match="attention_kernel must be one of sliding_window, linear, or be left out"):
        open_checkpoint(str(folder))


def test_approximate_attention_is_for_texts(tmp_path: Path) -> None:
    source = save_whisper(tmp_path / "source", attention_kernel="linear")
    with pytest.raises(InputError, match="the attention kernel linear is for long texts, found the task speech-rec"):
        open_checkpoint(str(source))

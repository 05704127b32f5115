"""A model of sixty numbers with its numpy reference, and bundles of it for each engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import (
    MANIFEST_NAME,
    Classification,
    Embedding,
    FileEntry,
    Manifest,
    ProgramSpec,
    Recipe,
    Requirements,
    Source,
    TensorSpec,
    TextPreprocessing,
)
from edgeformer_runtime.bundle.vectors import Tolerances, write_vectors
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.pipelines import open_program_pipeline

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "turn", "the", "lights", "off", "on", "hello", "##s", "!"]
LABELS = ("lights", "weather", "greeting")
SEQ_LENS = (8, 16)
SAMPLES = (
    {"text": "turn the lights off!"},
    {"text": ""},
    {"text": "hello", "pair": "turn the lights on"},
    {"text": "hello " * 40},
    {"token_ids": [2, 9, 3]},
)
HIDDEN = 4
# What the models below have, over both programs.
OPERATORS: dict[str, dict[str, int]] = {
    "onnx": {"Cast": 2, "Div": 2, "Gather": 2, "MatMul": 2, "Max": 2, "Mul": 2, "ReduceSum": 4, "Unsqueeze": 2},
    "litert": {
        "CAST": 2, "DIV": 2, "EMBEDDING_LOOKUP": 2, "FULLY_CONNECTED": 2, "MAXIMUM": 2, "MUL": 2, "RESHAPE": 6,
        "SUM": 4,
    },
    "executorch": {
        "XnnpackBackend": 4, "aten::embedding.out": 2, "aten::sum.IntList_out": 4, "aten::unsqueeze_copy.out": 2,
        "dim_order_ops::_to_dim_order_copy.out": 2,
    },
}  # fmt: skip
_RANDOM = np.random.default_rng(0)
TABLE = _RANDOM.standard_normal((len(WORDS), HIDDEN)).astype(np.float32)  # (vocabulary, HIDDEN)
WEIGHT = 3 * _RANDOM.standard_normal((HIDDEN, len(LABELS))).astype(np.float32)  # (HIDDEN, labels)


class TinyEngine:
    """The reference: the masked mean of the tokens' embeddings, times a matrix; or normalised, for an embedder."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def __init__(self, embeds: bool = False, offset: float = 0.0) -> None:
        self.embeds, self.offset = embeds, offset
        self.closed = False

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        mask = inputs["attention_mask"][..., None].astype(np.float32)  # (1, S, 1)
        mean = (TABLE[inputs["input_ids"]] * mask).sum(1) / np.maximum(mask.sum(1), 1)  # (1, HIDDEN)
        output = mean / np.linalg.norm(mean) if self.embeds else mean @ WEIGHT
        return {"output": output + np.float32(self.offset)}

    def close(self) -> None:
        self.closed = True


def manifest(target: str = "onnx", task: str = "text-classification", model: str = "model.bin") -> Manifest:
    """The tiny bundle's manifest, before its files are listed; "{}" in `model` is each program's length."""
    head = Classification(LABELS, "softmax") if task == "text-classification" else Embedding(HIDDEN, True)
    width = len(head.labels) if isinstance(head, Classification) else head.dim
    return Manifest(
        name="tiny",
        family="bert",
        task=task,
        target=target,
        precision="fp32",
        license="Apache-2.0",
        requires=Requirements(runtime="0.1.0"),
        source=Source("tests/tiny", None, "0" * 64),
        recipe=Recipe("wfp32_afp32", "float32", "float32", "float32"),
        attention="dense",
        toolchain={"torch": "2.13.0"},
        programs=tuple(
            ProgramSpec(
                name=f"seq_{length}",
                file=model.format(length),
                entry="main" if target == "onnx" else f"seq_{length}",
                inputs=tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask")),
                outputs=(TensorSpec("output", "float32", (1, width)),),
            )
            for length in SEQ_LENS
        ),
        preprocessing=TextPreprocessing("tokenizer.json", pad_token_id=0, vocab_size=len(WORDS)),
        postprocessing=head,
        operators=OPERATORS.get(target, {"ADD": 2}),
        files={},
    )


def seal(folder: Path, unsealed: Manifest) -> None:
    """List the folder's files in the manifest and write it."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME
    }
    (folder / MANIFEST_NAME).write_text(replace(unsealed, files=files).to_json(), encoding="utf-8")


def complete(
    folder: Path, unsealed: Manifest, samples: tuple[dict, ...] = SAMPLES, engine: Engine | None = None
) -> Path:
    """Add the tokenizer and the reference's vectors to a folder that has the model, and seal it."""
    (folder / "tokenizer.json").write_text(word_piece(), encoding="utf-8")
    seal(folder, unsealed)
    with Bundle.open(folder) as bundle:
        reference = engine or TinyEngine(embeds=unsealed.task == "text-embedding")
        pipeline = open_program_pipeline(bundle, reference)
        cases = [pipeline.record(sample) for sample in samples]
    write_vectors(folder, cases, Tolerances(output=1e-4, score=1e-4), unsealed)
    seal(folder, unsealed)
    return folder


def make_without_model(folder: Path, task: str = "text-classification") -> Path:
    """A valid bundle whose model file is no model."""
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(256)))
    return complete(folder, manifest(task=task))


def make_onnx(folder: Path, any_length: bool = False) -> Path:
    """The tiny model for ONNX Runtime, one file per length, or one with a symbolic size for all."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    folder.mkdir(parents=True)
    for length in ("S",) if any_length else SEQ_LENS:
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["tokens", "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "rows"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["column", "rows"], ["count"], keepdims=0),
            helper.make_node("Max", ["count", "one"], ["divisor"]),
            helper.make_node("Div", ["sum", "divisor"], ["mean"]),
            helper.make_node("MatMul", ["mean", "weight"], ["output"]),
        ]
        constants = {
            "table": TABLE,
            "weight": WEIGHT,
            "last": np.array([2], dtype=np.int64),
            "rows": np.array([1], dtype=np.int64),
            "one": np.array([[1]], dtype=np.float32),
        }
        graph = helper.make_graph(
            nodes,
            "tiny",
            [
                helper.make_tensor_value_info(name, TensorProto.INT32, [1, length])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, len(LABELS)])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        checker.check_model(model)
        save(model, str(folder / f"model_{length}.onnx"))
    made = manifest("onnx", model="model_S.onnx" if any_length else "model_{}.onnx")
    files = 1 if any_length else len(SEQ_LENS)
    operators = {name: count // len(SEQ_LENS) * files for name, count in made.operators.items()}
    return complete(folder, replace(made, operators=operators))


def make_litert(folder: Path) -> Path:
    """The tiny model for LiteRT, one signature per length."""
    import litert_torch
    import torch

    folder.mkdir(parents=True)
    converter = litert_torch
    for length in SEQ_LENS:
        inputs = {name: torch.ones(1, length, dtype=torch.int32) for name in ("input_ids", "attention_mask")}
        converter = converter.signature(f"seq_{length}", _torch_module(named=True), sample_kwargs=inputs)
    converter.convert().export(str(folder / "model.tflite"))
    return complete(folder, manifest("litert", model="model.tflite"))


def make_executorch(folder: Path) -> Path:
    """The tiny model for ExecuTorch, one method per length."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    folder.mkdir(parents=True)
    exported = {
        f"seq_{length}": torch.export.export(
            _torch_module(named=False), tuple(torch.ones(1, length, dtype=torch.int32) for _ in range(2))
        )
        for length in SEQ_LENS
    }
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    (folder / "model.pte").write_bytes(lowered.to_executorch().buffer)
    return complete(folder, manifest("executorch", model="model.pte"))


def word_piece() -> str:
    """A tokenizers file with twelve words and BERT's special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return str(tokenizer.to_str())


def _torch_module(named: bool):
    """The tiny model in torch; it returns a dict of its output if `named`, else a tuple."""
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.from_numpy(TABLE.copy()))
            self.weight = nn.Parameter(torch.from_numpy(WEIGHT.copy()))

        def forward(self, input_ids, attention_mask):
            mask = attention_mask.unsqueeze(-1).float()  # (1, S, 1)
            tokens = nn.functional.embedding(input_ids, self.table)  # (1, S, HIDDEN)
            mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)
            output = mean @ self.weight
            return {"output": output} if named else (output,)

    return Tiny().eval()

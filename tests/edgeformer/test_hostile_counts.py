"""Files that state counts and sizes beyond all sense are refused at once, in a line, before anything is built."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeformer.checkpoints.tokenizer_options import read_options
from edgeformer.checkpoints.weights import check_student, check_weight_files, load_weights
from edgeformer.compress.recipe import load_recipe
from edgeformer.convert.layer_plan import LayerPlan
from edgeformer.data.labelled import TEXT_COLUMNS, read_pairs
from edgeformer.models.family import FAMILIES
from edgeformer.report.collect import collect
from edgeformer.tasks.text import calibration_texts
from edgeformer_runtime.errors import InputError
from tests.edgeformer.checkpoints.bert_checkpoints import message

MILLION = 1_000_000
SECONDS = 4.0

Corrupt = Callable[[Path], Any]


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


def holding(data: bytes) -> Corrupt:
    return lambda path: path.write_bytes(data)


def refused(act: Callable[[], object]) -> str:
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        act()
    assert time.process_time() - begun < SECONDS
    assert "\n" not in str(caught.value)
    return str(caught.value)


ANY_TEXT: dict[str, Corrupt] = {
    "sparse": sparse,
    "NULs": holding(bytes(20 << 20)),
    "a line of a hundred megabytes": holding(b"x" * (100 << 20)),
    "deep": holding(b"[" * MILLION),
    "not UTF-8": holding(b"\xff\xfea\0"),
}


@pytest.mark.parametrize("corrupt", ANY_TEXT.values(), ids=ANY_TEXT)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_tables(name: str, corrupt: Corrupt, tmp_path: Path) -> None:
    corrupt(tmp_path / name)
    assert name in refused(lambda: read_pairs(tmp_path / name, None, TEXT_COLUMNS))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b'["a",1],' * MILLION + b"1]",
        b"[" + b"[]," * (20 * MILLION) + b"[]]",
        b'[["a", ' + b"9" * 5000 + b"]]",
        json.dumps([["a" * (3 << 20), "b"]]).encode(),
    ],
    ids=["a million rows", "lists", "a long number", "a long text"],
)
def test_tables_of_json(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    refused(lambda: read_pairs(tmp_path / "a.json", None, TEXT_COLUMNS))


@pytest.mark.parametrize("corrupt", [sparse, holding(bytes(1 << 20))], ids=["sparse", "NULs"])
def test_calibration_texts(corrupt: Corrupt, tmp_path: Path) -> None:
    corrupt(tmp_path / "a.txt")
    assert "a.txt" in refused(lambda: calibration_texts(tmp_path / "a.txt"))


@pytest.mark.parametrize("corrupt", ANY_TEXT.values(), ids=ANY_TEXT)
def test_recipes_and_plans(corrupt: Corrupt, tmp_path: Path) -> None:
    corrupt(tmp_path / "a.toml")
    assert "a.toml" in refused(lambda: load_recipe(tmp_path / "a.toml"))
    corrupt(tmp_path / "plan.json")
    assert "plan.json" in refused(lambda: LayerPlan.read(tmp_path / "plan.json"))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 30_000,
        "a = " + "9" * 30_000,
        "a" + ".a" * 30_000 + " = 1",
        "[[step]]\n" * 5000,
        "seq_len = 1000000000000",
        "seq_len = " + "9" * 400,
        *(
            f'[[step]]\nkind = "finetune"\ntraining = {{ {field} }}'
            for field in ("epochs = 1000000000000", "batch_size = 1000000000", "learning_rate = inf", "clip_norm = nan")
        ),
        '[[step]]\nkind = "distill"\naugment = { variants = 1000000000 }',
        '[[step]]\nkind = "distill"\nloss = { logits = 1e300 }',
        '[[step]]\nkind = "prune"\nlayers = 1000000000',
        '[[step]]\nkind = "prune"\nlayers = [1000000000]',
        '[[step]]\nkind = "prune"\nheads = 0.5\nexamples = 1000000000000',
        '[[step]]\nkind = "prune"\nheads = 0.5\nround_to = 1000000000000',
        '[[step]]\nkind = "sparsify"\nsparsity = 0.5\nblock = [1000000000, 1]',
        '[[step]]\nkind = "quantize_aware"\nblock = 1000000000',
    ],
    ids=lambda text: text[-40:],
)
def test_numbers_of_recipes(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    refused(lambda: load_recipe(tmp_path / "a.toml"))


def test_plans_of_a_million_layers() -> None:
    refused(lambda: LayerPlan(dict.fromkeys(map(str, range(MILLION)), "int8")))
    refused(lambda: LayerPlan({"x" * MILLION: "int3"}))


def edited(file: str, **changes: Any) -> Corrupt:
    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **changes}))

    return edit


def safetensors(header: bytes, values: int = 0) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(values)


def in_folder(name: str, corrupt: Corrupt) -> Corrupt:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        corrupt(folder / name)

    return write


def shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    names = {f"a{number}": f"m{number}.safetensors" for number in range(100_000)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


CHECKPOINTS: dict[str, Corrupt] = {
    **{
        f"sparse {name}": in_folder(name, sparse)
        for name in (
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "modules.json",
            "sentence_bert_config.json", "1_Pooling/config.json", "config_sentence_transformers.json",
        )
    },
    "deep config": in_folder("config.json", holding(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}")),
    "labels": edited("config.json", id2label={str(number): "a" for number in range(150_000)}),
    "heads": edited("config.json", num_attention_heads=10**4000),
    "pruned heads": edited("config.json", pruned_heads={str(number): [0] for number in range(100_000)}),
    "added tokens": edited(
        "tokenizer_config.json", added_tokens_decoder={str(number): {"content": "a"} for number in range(50_000)}
    ),
    "extra tokens": edited("tokenizer_config.json", extra_special_tokens=[f"a{n}" for n in range(50_000)]),
    "a million tokens": in_folder("vocab.txt", holding(b"".join(b"t%d\n" % number for number in range(990_000)))),
    "modes": in_folder("1_Pooling/config.json", holding(json.dumps({"pooling_mode": ["mean"] * 300_000}).encode())),
    "prompts": in_folder("config_sentence_transformers.json", holding(b'{"prompts": [1, 2]}')),
    "modules": in_folder("modules.json", holding(json.dumps([{"type": "Transformer"}] * 90_000).encode())),
    "a header longer than the file": in_folder("model.safetensors", holding(struct.pack("<Q", 1 << 60) + b"{}")),
    "a long header": in_folder("model.safetensors", holding(safetensors(b" " * (20 << 20)))),
    "NUL weights": in_folder("model.safetensors", holding(bytes(30 << 20))),
    "a shape beyond the file": in_folder("model.safetensors", holding(
        safetensors(b'{"a":{"dtype":"F32","shape":[1099511627776,1048576],"data_offsets":[0,16]}}', 16))),
    "tensors": in_folder("model.safetensors", holding(safetensors(b"{" + b",".join(
        b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(120_000)) + b"}"))),
    "shards": shards,
}  # fmt: skip


@pytest.mark.parametrize("corrupt", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints(corrupt: Corrupt, bert: Path) -> None:
    corrupt(bert)
    begun = time.process_time()
    said = message(bert)
    assert time.process_time() - begun < SECONDS
    assert len(said) < 1000


def test_older_added_tokens(tmp_path: Path) -> None:
    edited("added_tokens.json", **{f"a{number}": number for number in range(50_000)})(tmp_path)
    (tmp_path / "vocab.txt").write_text("a")
    assert "expected at most 20000 tokens" in refused(lambda: read_options(tmp_path, None))


def test_archives_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(4)}, path)
    check_weight_files((path,))
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data + bytes(10 << 20))
    assert "is compressed" in refused(lambda: check_weight_files((path,)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"}0" * (4 << 20))
    assert "names its tensors in over 1000000 steps" in refused(lambda: check_weight_files((path,)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"X\x00\x00\x50\x00" + b"a" * (5 << 20) + b".")
    assert "names its tensors in over 4194304 bytes" in refused(lambda: check_weight_files((path,)))
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    assert "its directory is not at its end" in refused(lambda: check_weight_files((path,)))


BEFORE_1_6 = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
"""What stands before the tensors' names in PyTorch's format before 1.6."""
TWO_GB = b"c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x80\x00\x85R."


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param(b"\x80\x02" + b"}0" * 600_000 + b"}.", "in over 1000000 steps", id="opcodes"),
        pytest.param(b"\x80\x02" + b"]" * 3_000_000 + b".", "in over 1000000 steps", id="lists"),
        pytest.param(b"]" * 3_000_000 + b".", "in over 1000000 steps", id="no protocol"),
        pytest.param(b"\x80\x02X\x00\x00\x50\x00" + b"a" * (5 << 20) + b".", "in over 4194304 bytes", id="a name"),
        pytest.param(b"\x80\x02" + TWO_GB, "holds more than tensors", id="2 GB out of a number"),
    ],
)
def test_pickles_before_pytorch_1_6(names: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(4)}, path, _use_new_zipfile_serialization=False)
    check_weight_files((path,))
    assert load_weights((path,))["a"].tolist() == [0, 1, 2, 3]
    path.write_bytes(BEFORE_1_6 + names)
    begun = time.process_time()
    assert said in refused(lambda: check_weight_files((path,)))
    assert time.process_time() - begun < SECONDS


def test_two_gb_out_of_a_number_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + TWO_GB)
    assert "holds more than tensors" in refused(lambda: check_weight_files((path,)))


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Names share tied weights; a hundred names of one tensor would become a hundred tensors."""
    path, tied = tmp_path / "pytorch_model.bin", torch.arange(1 << 20, dtype=torch.float32)
    torch.save({"a": tied, "b": tied}, path)
    assert load_weights((path,))["b"][-1] == (1 << 20) - 1
    torch.save({str(number): tied for number in range(100)}, path)
    assert "states over 16 times what it holds" in refused(lambda: load_weights((path,)))
    torch.save({"a": tied[:1].expand(1 << 40)}, path)
    assert "states over 16 times what it holds" in refused(lambda: load_weights((path,)))
    torch.save({"a": torch.zeros(1).expand(1 << 10)}, path)
    assert "has 1024 values of which its file holds fewer" in refused(lambda: load_weights((path,)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ],
    ids=["sparse", "CSR", "meta", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_dense(make: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": make()}, path)
    assert "tensor a is sparse, nested or without values" in refused(lambda: load_weights((path,)))


def test_a_student_of_more_weights_than_its_teacher() -> None:
    """Eight times its teacher's weights are the most, and four million may be built anyhow."""
    family = FAMILIES["mobilebert"]
    student = {"model_type": "mobilebert", "vocab_size": 1000, "hidden_size": 512, "embedding_size": 128}
    student |= {"num_hidden_layers": 24, "intra_bottleneck_size": 128, "intermediate_size": 512}
    check_student(family, student, 1_000_000)
    check_student(family, student | {"vocab_size": 100_000}, 10_000_000)
    said = refused(lambda: check_student(family, student | {"vocab_size": 100_000}, 1_000_000))
    assert said.startswith("student: vocab_size * embedding_size is 12800000, and the teacher has 1000000 weights")
    for field in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"):
        assert field in refused(lambda field=field: check_student(family, student | {field: 1 << 40}, 1_000_000))


def test_a_report_of_a_million_points(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "edgeformer.json").write_text(json.dumps({"steps": [{}] * 100_000}))
    (folder / "search.json").write_text(json.dumps({"met": False, "target": "onnx", "points": [{}] * 100_000}))
    begun = time.process_time()
    report = collect(tmp_path)
    assert time.process_time() - begun < SECONDS
    assert any("expected 2000 at most" in note for note in report.notes)
    sparse(folder / "edgeformer.json")
    assert "4294967296 bytes" in collect(tmp_path).notes[0]

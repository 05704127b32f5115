"""Folders of sentence-transformers: what a bundle gives is what that library gives, or it is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoint_factory import tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, capped, load_module, open_checkpoint
from edgeformer.models.family import ProgramOptions
from edgeformer.models.pooling import EmbeddingHead
from edgeformer.tasks.text import EMBEDDING, TEXTS
from edgeformer_runtime.bundle.manifest import Embedding
from edgeformer_runtime.errors import InputError

PIECES = ("Transformer", "Pooling", "Normalize")
FOLDERS = ("", "1_Pooling", "2_Normalize")
V5 = "sentence_transformers.models."
V6 = ("base.modules.transformer.", "sentence_transformer.modules.pooling.", "base.modules.normalize.")


def modules(count: int, version: int = 5) -> list[dict[str, Any]]:
    """modules.json as version 5 and before write it, or version 6."""
    prefixes = (V5,) * 3 if version < 6 else tuple(f"sentence_transformers.{part}" for part in V6)
    return [
        {"idx": index, "name": str(index), "path": path, "type": prefix + kind}
        for index, (path, prefix, kind) in enumerate(zip(FOLDERS, prefixes, PIECES, strict=True))
    ][:count]


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel with its tokenizer."""
    folder = tmp_path_factory.mktemp("embedder") / "mini"
    torch.manual_seed(0)
    words = tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), max_position_embeddings=64, initializer_range=0.3, **sizes
    )
    transformers.BertModel(config).eval().save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    return folder


@pytest.fixture
def mini(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mini"))


def _weighted(states: Tensor) -> Tensor:
    weights = torch.arange(1.0, len(states) + 1)
    return (states * weights[:, None]).sum(dim=0) / weights.sum()


POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(dim=0).values,
    "mean": lambda states: states.mean(dim=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(dim=0) / len(states) ** 0.5,
    "weightedmean": _weighted,
    "lasttoken": lambda states: states[-1],
}
"""As sentence-transformers documents them, of the states (S, C) of a text without padding."""


def embedder(folder: Path, count: int = 3, version: int = 5, **pooling: Any) -> Path:
    write(folder / "modules.json", modules(count, version))
    write(folder / "1_Pooling" / "config.json", pooling or {"pooling_mode_mean_tokens": True})
    return folder


def embedding(checkpoint: Checkpoint, text: str) -> Tensor:
    """Of our module, in a bucket with padding."""
    module, _ = load_module(checkpoint, KERNELS["dense"])
    ids = Tokenizer.from_str(checkpoint.tokenizer_json or "").encode(text).ids
    inputs = [torch.zeros(1, 48, dtype=torch.int32) for _ in range(3)]
    inputs[0][0, : len(ids)], inputs[1][0, : len(ids)] = torch.tensor(ids, dtype=torch.int32), 1
    with torch.no_grad():
        found: Tensor = module(*inputs)[0][0]
    return found


def hidden(folder: Path, text: str) -> Tensor:
    """(S, C) of transformers."""
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        found: Tensor = transformers.AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0]
    return found


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "cls", "embedding_dimension": 32}, "cls"),
        ({"pooling_mode": ["mean"], "include_prompt": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len_tokens"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode": ["max", "cls"]}, "max cls"),
        # Flags have an order of their own.
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": True}, "mean lasttoken"),
    ],
)
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("version", [5, 6])
def test_pooling_and_norm_are_the_folders(
    mini: Path, pooling: dict[str, Any], mode: str, normalized: bool, version: int
) -> None:
    checkpoint = open_checkpoint(str(embedder(mini, 3 if normalized else 2, version, **pooling)))
    states = hidden(mini, "turn the lights off")
    expected = torch.cat([POOLED[each](states) for each in mode.split()])
    expected = torch.nn.functional.normalize(expected, dim=0) if normalized else expected
    torch.testing.assert_close(embedding(checkpoint, "turn the lights off"), expected, rtol=1e-4, atol=1e-5)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    programs = checkpoint.family.programs(module, checkpoint.config, ProgramOptions(seq_lens=(16,)))
    head = EMBEDDING.spec(checkpoint, programs, ProgramOptions(seq_lens=(16,))).postprocessing
    assert head == Embedding(dim=32 * len(mode.split()), normalized=normalized)
    assert any("has no Normalize" in note for note in checkpoint.notes) != normalized


def test_pooling_without_modules_json(mini: Path) -> None:
    embedder(mini, pooling_mode_cls_token=True)
    (mini / "modules.json").unlink()
    checkpoint = open_checkpoint(str(mini))
    assert (checkpoint.task, checkpoint.head) == ("text-embedding", EmbeddingHead(("cls",)))
    assert any("modules.json is not there" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "min"}, "pooling must be one or several of cls, max, mean"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", {}]}, "found ['cls', {}]"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "found []"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "found 3"),
        (
            "2_Normalize/config.json",
            {"module_input_name": "token_embeddings"},
            "module_input_name is 'token_embeddings'",
        ),
        (
            "modules.json",
            [*modules(2), {"path": "2_LSTM", "type": f"{V5}LSTM"}],
            "found 'sentence_transformers.models.LSTM'",
        ),
        ("modules.json", [*modules(3), {"path": "3_Dense", "type": f"{V5}Dense"}], "in this order"),
        ("modules.json", [*modules(2), modules(3)[1]], "found 'sentence_transformers.models.Pooling'"),
        ("modules.json", [modules(1)[0] | {"type": "own.Transformer"}], "found 'own.Transformer'"),
        ("modules.json", modules(1), "has no Pooling: expected an embedder's Transformer and Pooling"),
        ("modules.json", [modules(3)[0], {"path": "../x", "type": f"{V5}Pooling"}], "outside of the checkpoint"),
        ("modules.json", [*reversed(modules(2))], "in this order"),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim is 8"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "a SparseEncoder has no task here"),
        ("sentence_bert_config.json", {"max_seq_length": "x"}, "max_seq_length must be an integer"),
        ("sentence_bert_config.json", {"query_length": 9}, "query_length is 9"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query", "prompts": {"passage": "p: "}},
            "default_prompt_name is 'query', which is none of the prompts: expected one of passage, or null",
        ),
    ],
)
def test_what_is_not_converted_is_refused(mini: Path, file: str, content: Any, reason: str) -> None:
    embedder(mini)
    write(mini / file, content)
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(mini))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def dense_behind(folder: Path, changes: dict[str, Any] | None = None, **tensors: Tensor) -> Path:
    """An embedder with a dense layer of 32 to 8 between its pooling and its norm."""
    embedder(folder)
    write(folder / "modules.json", [*modules(2), {"path": "2_Dense", "type": f"{V5}Dense"}, modules(3)[2]])
    config = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": f"{ACTIVATION}Tanh"}
    write(folder / "2_Dense" / "config.json", config | (changes or {}))
    torch.manual_seed(1)
    dense = {"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)} | tensors
    save_file({name: tensor for name, tensor in dense.items() if len(tensor)}, folder / "2_Dense" / "model.safetensors")
    return folder


ACTIVATION = "torch.nn.modules.activation."


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({}, torch.tanh),
        ({"activation_function": None}, torch.tanh),
        ({"activation_function": "torch.nn.modules.linear.Identity", "bias": False}, lambda x: x),
        ({"activation_function": f"{ACTIVATION}GELU"}, torch.nn.functional.gelu),
    ],
)
def test_dense_layers_stand_behind_the_pooling(mini: Path, changes: dict[str, Any], activation: Any) -> None:
    if changes.get("activation_function", "") is None:
        changes = {}
        dense_behind(mini)
        config = json.loads((mini / "2_Dense" / "config.json").read_text())
        del config["activation_function"]  # then it is the library's default
        write(mini / "2_Dense" / "config.json", config)
    biased = changes.get("bias", True)
    dense_behind(mini, changes, **({} if biased else {"linear.bias": torch.empty(0)}))
    weights = load_file(mini / "2_Dense" / "model.safetensors")
    pooled = hidden(mini, "turn the lights off").mean(dim=0)
    bias = weights.get("linear.bias")
    expected = activation(torch.nn.functional.linear(pooled, weights["linear.weight"], bias))
    found = embedding(open_checkpoint(str(mini)), "turn the lights off")
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=0), rtol=1e-4, atol=1e-5)


def test_a_dense_layers_weights_are_part_of_the_source(mini: Path) -> None:
    hashes = set()
    for scale in (1.0, 2.0):
        dense_behind(mini, **{"linear.bias": torch.full((8,), scale)})
        hashes.add(open_checkpoint(str(mini)).source.weights_sha256)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation_function": f"{ACTIVATION}Softshrink"}, "activation_function must be torch's Identity, Tanh"),
        ({"activation_function": "own.Tanh"}, "found 'own.Tanh'"),
        ({"in_features": 1 << 20, "out_features": 1 << 20}, "must be sizes of the"),
        ({"in_features": "32"}, "found '32' and 8"),
        ({"use_residual": True}, "use_residual is True"),
        ({"module_input_name": "token_embeddings"}, "modules behind the pooling take the whole embedding"),
    ],
)
def test_dense_layers_that_are_not_computed_are_refused(mini: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(dense_behind(mini, changes)))
    assert reason in str(caught.value)


def test_dense_weights_are_safetensors_of_their_config(mini: Path) -> None:
    dense_behind(mini, {"in_features": 16})
    with pytest.raises(InputError, match=r"sentence.dense.0.weight \(8, 32\) instead of \(8, 16\)"):
        load_module(open_checkpoint(str(mini)), KERNELS["dense"])
    dense_behind(mini, **{"bert.embeddings.word_embeddings.weight": torch.zeros(1, 1)})
    with pytest.raises(InputError, match=r"1 unexpected \(sentence.dense.0.bert.embeddings"):
        load_module(open_checkpoint(str(mini)), KERNELS["dense"])
    (mini / "2_Dense" / "model.safetensors").rename(mini / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(InputError, match="2_Dense: a Dense module needs"):
        open_checkpoint(str(mini))


def test_the_transformer_may_have_a_folder_of_its_own(mini: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    embedder(root)
    shutil.move(mini, root / "0_Transformer")
    pieces = modules(3)
    pieces[0]["path"] = "0_Transformer"
    write(root / "modules.json", pieces)
    write(root / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 33})
    checkpoint = open_checkpoint(str(root))
    assert (checkpoint.source.id, checkpoint.longest) == ("local:root", 33)
    assert checkpoint.folder == root / "0_Transformer"
    assert checkpoint.tokenizer_json is not None


def hub_cache(folder: Path, cache: Path) -> Path:
    """A snapshot of the folder in the layout of the hub's cache: links into blobs beside all snapshots."""
    snapshot = cache / "models--acme--mini" / "snapshots" / ("a" * 40)
    blobs = cache / "models--acme--mini" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(each for each in folder.rglob("*") if each.is_file())):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / f"{number:064x}")
        link.symlink_to(os.path.relpath(blobs / f"{number:064x}", link.parent))
    return snapshot


def test_a_hub_cache_is_read_as_the_folder(mini: Path, tmp_path: Path) -> None:
    plain = open_checkpoint(str(embedder(mini, pooling_mode="cls")))
    linked = open_checkpoint(str(hub_cache(mini, tmp_path / "hub")))
    assert linked.tokenizer_json == plain.tokenizer_json
    assert (linked.source.weights_sha256, linked.head.poolings) == (plain.source.weights_sha256, ("cls",))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("cached", [True, False])
def test_links_that_leave_the_checkpoint_are_refused(mini: Path, tmp_path: Path, file: str, cached: bool) -> None:
    folder = embedder(mini)
    folder = hub_cache(folder, tmp_path / "hub") if cached else folder
    secret = tmp_path / "secret"
    shutil.copy(folder / file, secret)
    (folder / file).unlink()
    (folder / file).symlink_to(secret)
    with pytest.raises(InputError, match="is a link to a file outside of the checkpoint"):
        open_checkpoint(str(folder))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4050300\n"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json", "vocab.txt"]
)
def test_git_lfs_pointers_are_named(mini: Path, file: str) -> None:
    if file == "pytorch_model.bin":
        (mini / "model.safetensors").unlink()
    (mini / file).write_text(POINTER)
    with pytest.raises(InputError, match=f"{file} is a git-lfs pointer and not the file itself: run git lfs pull"):
        open_checkpoint(str(mini))
    if file.endswith((".safetensors", ".bin")):
        with pytest.raises(InputError, match="git-lfs pointer"):
            open_checkpoint(str(mini / file))


@pytest.mark.parametrize("alone", [True, False])
def test_adapters_are_refused(mini: Path, alone: bool) -> None:
    write(mini / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "someone/base"})
    if alone:
        (mini / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds an adapter \(adapter_config.json, LORA\).*merge_and_unload\(\)"):
        open_checkpoint(str(mini))


def test_lengths_end_where_the_library_cuts(mini: Path) -> None:
    write(embedder(mini) / "sentence_bert_config.json", {"max_seq_length": 24})
    checkpoint = open_checkpoint(str(mini))
    assert capped(checkpoint, (8, 16)) == ((8, 16), ())
    assert capped(checkpoint, (24,)) == ((24,), ())
    lengths, notes = capped(checkpoint, (16, 32, 64))
    assert lengths == (16, 24)
    assert notes[0].startswith("the checkpoint cuts texts at 24 tokens")
    assert "the lengths 32, 64 became 24" in notes[0]


def test_minilm_is_cut_at_256(assets: Path) -> None:
    assert open_checkpoint(str(assets / "minilm-l6-v2")).longest == 256


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.BertNormalizer(lowercase=False),
        normalizers.BertNormalizer(lowercase=False, strip_accents=True),
        normalizers.BertNormalizer(lowercase=True),
        normalizers.NFC(),
        None,
    ],
)
def test_its_own_lower_casing(mini: Path, normalizer: Any) -> None:
    """As sentence-transformers 5.7 and 6.2 do it: a Lowercase before the tokenizer's own normalizer."""
    write(mini / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    reference = Tokenizer.from_file(str(mini / "tokenizer.json"))
    reference.normalizer = normalizer
    reference.save(str(mini / "tokenizer.json"))
    write(embedder(mini) / "sentence_bert_config.json", {"do_lower_case": True})
    reference.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), *([] if normalizer is None else [normalizer])]
    )
    ours = Tokenizer.from_str(open_checkpoint(str(mini)).tokenizer_json or "")
    for sample in (*TEXTS, {"text": "TURN The LIGHTS \u00c9\u0130 \u01c4 on"}):
        assert ours.encode(sample["text"]).ids == reference.encode(sample["text"]).ids


def prompted(folder: Path, default: str | None, **prompts: str) -> Path:
    write(embedder(folder) / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": default})
    return folder


def test_the_default_prompt_is_built_in_as_encode_puts_it(mini: Path) -> None:
    folder = str(prompted(mini, "query", query="turn: ", passage="on: "))
    default = open_checkpoint(folder)
    assert default.tokenizer_json == open_checkpoint(folder, prompt="query").tokenizer_json
    assert any("default prompt 'turn: ' is built in" in note for note in default.notes)
    plain = open_checkpoint(folder, prompt="none")
    reference = transformers.AutoTokenizer.from_pretrained(mini)
    for name, text in (("query", "turn: "), ("passage", "on: ")):
        ours = Tokenizer.from_str(open_checkpoint(folder, prompt=name).tokenizer_json or "")
        for sample in TEXTS:
            assert ours.encode(sample["text"]).ids == reference(text + sample["text"])["input_ids"]
        ours.enable_truncation(12)
        long = reference(text + "turn the lights on and off " * 5, truncation=True, max_length=12)
        assert ours.encode("turn the lights on and off " * 5).ids == long["input_ids"]
    assert Tokenizer.from_str(plain.tokenizer_json or "").encode("on").tokens == ["[CLS]", "on", "[SEP]"]
    assert open_checkpoint(folder, task="text-classification", new_head=True).task == "text-classification"
    with pytest.raises(InputError, match="has no prompt 'x': expected one of query, passage, none"):
        open_checkpoint(folder, prompt="x")


@pytest.mark.parametrize("text", ["turn", "turn_", "the lights", "turn [MA:"])
def test_prompts_that_could_merge_with_a_text_are_refused(mini: Path, text: str) -> None:
    folder = str(prompted(mini, "query", query=text))
    if text == "turn [MA:":
        spec = json.loads((mini / "tokenizer.json").read_text())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
        number = len(spec["model"]["vocab"])
        spec["added_tokens"] = [{"id": number, "content": "[ma:sk]", "normalized": True, **flags}]
        (mini / "tokenizer.json").write_text(json.dumps(spec))
        raw = json.loads((mini / "config.json").read_text())
        write(mini / "config.json", {**raw, "vocab_size": number + 1})
    with pytest.raises(InputError, match=r"cannot be built into this tokenizer.*--prompt none"):
        open_checkpoint(folder, prompt="query")


def test_prompts_that_are_not_pooled_are_refused(mini: Path) -> None:
    prompted(mini, "query", query="turn: ")
    write(mini / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(InputError, match="include_prompt is false"):
        open_checkpoint(str(mini), prompt="query")
    assert open_checkpoint(str(mini), prompt="none").head == EmbeddingHead()


def test_other_prompts_are_noted_and_empty_ones_are_none(mini: Path) -> None:
    notes = open_checkpoint(str(prompted(mini, None, query="turn: ", document=""))).notes
    assert any("has the prompts query: put the right one" in note for note in notes)
    assert open_checkpoint(str(prompted(mini, "document", query="", document=""))).notes == ()

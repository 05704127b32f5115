"""Opening and loading public checkpoints: real ones made by transformers, odd ones, and hostile ones."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from checkpoint_factory import tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.sources import resolve_source
from edgeformer.zoo import ZOO
from edgeformer_runtime.errors import InputError
from tests.edgeformer.checkpoints.bert_checkpoints import SIZES, edit_config, edit_weights, message, save_bert

NO_TOKENIZER = "the checkpoint has no tokenizer: the bundle takes token ids only"


def test_opens_a_local_folder(bert: Path) -> None:
    checkpoint = open_checkpoint(str(bert))
    assert checkpoint.source.id == "local:intents"
    assert checkpoint.source.revision is None
    weights = bert / "model.safetensors"
    assert checkpoint.source.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert checkpoint.weight_files == (weights,)
    assert (checkpoint.family.name, checkpoint.task) == ("bert", "text-classification")
    assert checkpoint.labels == ("no", "yes", "maybe")
    assert checkpoint.activation == "softmax"
    assert (checkpoint.license, checkpoint.tokenizer_json, checkpoint.pad_token_id) == (None, None, 0)
    module, keys = load_module(checkpoint, KERNELS["dense"])
    assert (keys.unused, keys.notes) == ((), (NO_TOKENIZER,))
    for name, tensor in load_file(weights).items():
        assert torch.equal(module.state_dict()[name], tensor)
    assert not module.training


def test_opens_minilm(assets: Path) -> None:
    checkpoint = open_checkpoint(str(assets / "minilm-l6-v2"))
    assert (checkpoint.task, checkpoint.labels) == ("text-embedding", ())
    module, keys = load_module(checkpoint, KERNELS["dense"])
    assert keys.unused == ("bert.embeddings.position_ids", "bert.pooler.dense.bias", "bert.pooler.dense.weight")
    assert "3 tensors" in keys.notes[-1]
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    spec = json.loads(checkpoint.tokenizer_json or "")
    assert spec["truncation"] is spec["padding"] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(bert: Path, dtype: torch.dtype) -> None:
    edit_weights(bert, lambda state: state.update({name: t.to(dtype) for name, t in state.items()}))
    module, _ = load_module(open_checkpoint(str(bert)), KERNELS["dense"])
    state = load_file(bert / "model.safetensors")
    assert all(torch.equal(t, state[name].float()) for name, t in module.state_dict().items())


@pytest.mark.parametrize("kind", ["safetensors_shards", "pickle", "pickle_shards"])
def test_every_kind_of_weight_file_loads_the_same(bert: Path, kind: str) -> None:
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    stem, suffix = ("model", "safetensors") if kind == "safetensors_shards" else ("pytorch_model", "bin")
    save = save_file if suffix == "safetensors" else torch.save
    if kind == "pickle":
        torch.save(state, bert / "pytorch_model.bin")
    else:
        names = sorted(state)
        shards = {f"{stem}-0000{i}-of-00002.{suffix}": names[i - 1 :: 2] for i in (1, 2)}
        for file, part in shards.items():
            save({name: state[name] for name in part}, bert / file)
        weight_map = {name: file for file, part in shards.items() for name in part}
        (bert / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    module, _ = load_module(open_checkpoint(str(bert)), KERNELS["dense"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_forward_module.module."])
def test_what_wrappers_put_before_every_name_is_left_out(bert: Path, prefix: str) -> None:
    state = load_file(bert / "model.safetensors")
    edit_config(bert, architectures=None)  # the weights alone tell the task
    save_file({prefix + name: tensor for name, tensor in state.items()}, bert / "model.safetensors")
    module, _ = load_module(open_checkpoint(str(bert)), KERNELS["dense"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    save_file({f"net.{prefix}{name}": tensor for name, tensor in state.items()}, bert / "model.safetensors")
    text = message(bert, task="text-classification")
    assert f"have the prefix 'net.{prefix}'" in text
    assert "fine-tune it" not in text


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("adapter_model.safetensors", "merge it with peft's merge_and_unload()"),
        ("model.fp16.safetensors", "rename it to model.safetensors"),
        ("checkpoint.bin", "rename it to pytorch_model.bin"),
        ("best.pth", "rename it to pytorch_model.bin"),
        ("tf_model.h5", "transformers 4 and from_tf=True"),
        ("flax_model.msgpack", "transformers 4 and from_flax=True"),
        ("model.onnx", "an exported model is not read"),
        ("model-q4.gguf", "ggml's weights are not read"),
    ],
)
def test_weights_that_are_not_read_are_named(bert: Path, file: str, advice: str) -> None:
    (bert / "model.safetensors").rename(bert / file)
    text = message(bert)
    assert f"found {file}: " in text
    assert advice in text


def test_classifier_becomes_embedder_on_request(bert: Path) -> None:
    checkpoint = open_checkpoint(str(bert), task="text-embedding")
    _, keys = load_module(checkpoint, KERNELS["dense"])
    assert checkpoint.labels == ()
    assert set(keys.unused) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_sentence_transformers_pooling(bert: Path) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (bert / "modules.json").write_text(json.dumps(modules))
    assert "Pooling module whose config.json is not there" in message(bert)
    (bert / "1_Pooling").mkdir()
    pooling = bert / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}))
    assert open_checkpoint(str(bert)).task == "text-embedding"
    modules += [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (bert / "modules.json").write_text(json.dumps(modules))
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert "a Dense module needs config.json and model.safetensors" in message(bert)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_both_names_of_the_stored_type_say_nothing(bert: Path, name: str) -> None:
    edit_config(bert, **{"dtype": "float32", name: "float16"})
    checkpoint = open_checkpoint(str(bert))
    assert checkpoint.notes == (NO_TOKENIZER,)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}


def test_configs_without_model_type_are_told_to_add_it(bert: Path) -> None:
    edit_config(bert, model_type=None, architectures=None)
    assert 'add one, as "model_type": "bert"' in message(bert)


def test_the_authors_own_class_is_refused(bert: Path) -> None:
    edit_config(bert, auto_map={"AutoModelForSequenceClassification": "own.Own"}, architectures=["OwnBert"])
    assert "config.json: auto_map is" in message(bert)
    assert "code is not run here" in message(bert)


def test_one_token_type(tmp_path: Path) -> None:
    """The public model takes no pair whose second text has another type: here it gets the only one there is."""
    folder = save_bert(tmp_path / "one", type_vocab_size=1, vocab_size=200)
    tokenizer().save(str(folder / "tokenizer.json"))
    checkpoint = open_checkpoint(str(folder))
    assert any("type_vocab_size is 1" in note for note in checkpoint.notes)
    assert set(Tokenizer.from_str(checkpoint.tokenizer_json or "").encode("on", "off").type_ids) == {0}
    load_module(checkpoint, KERNELS["dense"])


def test_license_of_the_model_card(bert: Path) -> None:
    card = bert / "README.md"
    card.write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Card\n")
    assert open_checkpoint(str(bert)).license == "apache-2.0"
    card.write_text("# Card\nlicense: mit\n")
    assert open_checkpoint(str(bert)).license is None


def test_every_wrong_tensor_is_named_in_one_line(bert: Path) -> None:
    def corrupt(state: dict[str, torch.Tensor]) -> None:
        del state["bert.encoder.layer.0.output.dense.weight"]
        del state["bert.pooler.dense.bias"]
        state["bert.encoder.layer.1.output.dense.bias"] = torch.zeros(16)
        state["classifier.bias"] = torch.zeros(4)

    edit_weights(bert, corrupt)
    text = message(bert)
    assert "2 missing (bert.encoder.layer.0.output.dense.weight, bert.pooler.dense.bias)" in text
    assert "1 unexpected (bert.encoder.layer.1.output.dense.bias)" in text
    assert "1 of another shape (classifier.bias (4,) instead of (3,))" in text


@pytest.mark.parametrize("prefix", ["net.", "student.backbone."])
def test_an_unknown_prefix_is_named(bert: Path, prefix: str) -> None:
    def corrupt(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[prefix + name] = state.pop(name)

    edit_weights(bert, corrupt)
    text = message(bert)
    assert f"2 tensors have the prefix '{prefix}', which a training script put before their names" in text
    assert "classifier.weight" not in text


def test_missing_classifier_points_to_embedding(bert: Path) -> None:
    edit_weights(bert, lambda state: [state.pop(f"classifier.{part}") for part in ("weight", "bias")] and None)
    assert "ask for the task text-embedding" in message(bert)


def test_pooler_against_its_config_is_unexpected(tmp_path: Path) -> None:
    """MobileBERT without classifier_activation has no pooler layer: one in the weights contradicts the config."""
    sizes = SIZES | {"intra_bottleneck_size": 8, "embedding_size": 8}
    model = transformers.MobileBertForSequenceClassification(transformers.MobileBertConfig(**sizes))
    model.save_pretrained(tmp_path / "mobile")
    load_module(open_checkpoint(str(tmp_path / "mobile")), KERNELS["dense"])
    edit_config(tmp_path / "mobile", classifier_activation=False)
    assert "unexpected (mobilebert.pooler.dense.bias" in message(tmp_path / "mobile")


def test_not_a_number_is_refused(bert: Path) -> None:
    edit_weights(bert, lambda state: state.update({"classifier.bias": torch.tensor([0.0, float("nan"), 0.0])}))
    assert "classifier.bias holds NaN" in message(bert)


def test_quantized_tensors_are_refused(bert: Path) -> None:
    edit_weights(bert, lambda state: state.update({"classifier.bias": torch.zeros(3, dtype=torch.int8)}))
    assert "classifier.bias is torch.int8" in message(bert)


@pytest.mark.parametrize("kept_bytes", [0, 5, 100, -1])
def test_cut_safetensors_are_refused(bert: Path, kept_bytes: int) -> None:
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert "model.safetensors, it is corrupted or cut short" in message(bert)


@pytest.mark.parametrize("kept_bytes", [0, 5, 1000, -1000])
def test_cut_pickles_are_refused(bert: Path, kept_bytes: int) -> None:
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    path = bert / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert "pytorch_model.bin" in message(bert)


class Evil:
    """Unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_pickle_with_code_is_refused(bert: Path, tmp_path: Path, container: str) -> None:
    (bert / "model.safetensors").unlink()
    loot = tmp_path / "loot"
    content = {"bert.pooler.dense.bias": Evil(loot)}
    if container == "torch":
        torch.save(content, bert / "pytorch_model.bin")
    else:
        (bert / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    assert "pytorch_model.bin" in message(bert)
    assert not loot.exists()


def test_pickle_without_tensors_is_refused(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    torch.save({"optimizer": {"a": torch.zeros(1)}}, bert / "pytorch_model.bin")
    assert "no dictionary of tensors" in message(bert)


@pytest.mark.parametrize("name", ["../secret.safetensors", "absent.safetensors", "config.json", 3])
def test_index_may_not_name_other_files(bert: Path, name: object) -> None:
    (bert / "model.safetensors").rename(bert.parent / "secret.safetensors")
    (bert / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "model.safetensors.index.json" in message(bert)


def test_folders_that_are_no_checkpoints(bert: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no config.json in it" in message(empty)
    assert "is a file" in message(bert / "config.json")
    (bert / "model.safetensors").unlink()
    assert "no weights in intents: expected model.safetensors or pytorch_model.bin" in message(bert)
    edit_config(bert, model_type="gpt-2")
    assert "unknown model_type 'gpt-2'" in message(bert)
    edit_config(bert, model_type=None)
    assert "names no model_type" in message(bert)
    (bert / "config.json").write_text("{")
    assert "config.json is not JSON" in message(bert)
    (bert / "config.json").write_text("[]")
    assert "must hold a JSON object" in message(bert)


def test_pad_token(bert: Path) -> None:
    edit_config(bert, pad_token_id=7)
    assert open_checkpoint(str(bert)).pad_token_id == 7
    edit_config(bert, pad_token_id=None)
    assert open_checkpoint(str(bert)).pad_token_id == 0
    edit_config(bert, pad_token_id=40)
    assert "pad_token_id must be an id below vocab_size 40" in message(bert)


def test_tokenizer_larger_than_the_model_is_refused(bert: Path, assets: Path) -> None:
    shutil.copy(assets / "minilm-l6-v2" / "tokenizer.json", bert)
    assert "30522 tokens and the model has 40 embeddings" in message(bert)


def test_hub(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real call, with the network replaced by a snapshot in a cache's layout."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = Path(shutil.copytree(bert, tmp_path / "snapshots" / commit))
    calls: list[tuple[str, str | None]] = []

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((repo_id, revision))
        assert "model*.safetensors" in allow_patterns
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    checkpoint = open_checkpoint("someone/intents", revision="main")
    assert (checkpoint.source.id, checkpoint.source.revision) == ("hub:someone/intents", commit)
    assert calls == [("someone/intents", "main")]


def test_hub_offline_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    text = message("nobody/nothing", revision="v1")
    assert text.startswith("no checkpoint 'nobody/nothing' at revision v1")
    assert "clinc150-mobilebert" in text


@pytest.mark.parametrize("source", ["", "no/such/folder", "/no/such/folder", "a b", "../x"])
def test_unknown_sources(source: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_source(source)
    assert "\n" not in str(caught.value)


def test_revision_of_a_folder_is_refused(bert: Path) -> None:
    assert "a revision belongs to a hub id" in message(bert, revision="main")


def test_zoo_names_resolve_to_folders_of_the_package() -> None:
    for name, entry in ZOO.items():
        found = resolve_source(name)
        assert (found.id, found.folder) == (f"zoo:{name}", entry.folder)

"""Our BERT family against transformers' BERT and DistilBERT, and against the stored embeddings of MiniLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from edgeformer.attention import KERNELS
from edgeformer.models.bert import FAMILY, BertConfig
from edgeformer.models.family import ProgramOptions, family_for
from edgeformer_runtime.errors import InputError

BERT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 33,
    "num_labels": 4,
}
DISTILBERT: dict[str, Any] = {
    "vocab_size": 50,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": 33,
    "num_labels": 4,
}


def randomized(model: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def bert(**overrides: Any) -> Any:
    torch.manual_seed(0)
    return randomized(transformers.BertForSequenceClassification(transformers.BertConfig(**(BERT | overrides))))


def distilbert(**overrides: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(**(DISTILBERT | overrides))
    return randomized(transformers.DistilBertForSequenceClassification(config))


def loaded(state: dict[str, Tensor], raw: dict[str, Any], task: str = "text-classification") -> nn.Module:
    module = FAMILY.build(FAMILY.parse_config(raw), task, 4, KERNELS["dense"])
    renamed = FAMILY.rename(state)
    leftover = renamed.keys() - module.state_dict().keys()
    assert all(FAMILY.is_unused(name) for name in leftover)
    module.load_state_dict({name: renamed[name] for name in module.state_dict()})
    return module


def inputs_of(seq_len: int, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seq_len)
    ids = torch.randint(0, 50, (len(lengths), seq_len), generator=generator).int()
    types = torch.randint(0, 2, (len(lengths), seq_len), generator=generator).int()
    return ids, (torch.arange(seq_len) < torch.tensor(lengths)[:, None]).int(), types


MODELS = {
    "bert": (bert, {}),
    "bert_eps_and_tanh_gelu": (bert, {"layer_norm_eps": 1e-2, "hidden_act": "gelu_new"}),
    "bert_relu_deep": (bert, {"hidden_act": "relu", "num_hidden_layers": 6}),
    "distilbert": (distilbert, {}),
    "distilbert_relu_sinusoidal": (distilbert, {"activation": "relu", "sinusoidal_pos_embds": True}),
}


@pytest.mark.parametrize("name", MODELS)
def test_equals_transformers(name: str) -> None:
    make, overrides = MODELS[name]
    reference = make(**overrides)
    raw = reference.config.to_dict()
    classifier = loaded(reference.state_dict(), raw)
    embedder = loaded(reference.state_dict(), raw, "text-embedding")
    for seq_len, lengths in ((2, [2, 1]), (16, [16, 5, 11]), (33, [33, 1])):
        ids, mask, types = inputs_of(seq_len, lengths)
        with_types = {} if make is distilbert else {"token_type_ids": types}
        arguments = (ids, mask) if make is distilbert else (ids, mask, types)
        with torch.no_grad():
            out = reference(input_ids=ids, attention_mask=mask, output_hidden_states=True, **with_types)
            torch.testing.assert_close(classifier(*arguments)[0], out.logits, rtol=1e-5, atol=1e-5)
            mean = (out.hidden_states[-1] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            expected = nn.functional.normalize(mean, dim=1)
            torch.testing.assert_close(embedder(*arguments)[0], expected, rtol=0, atol=1e-5)


VARIANTS = {
    "roberta": ("Roberta", {"type_vocab_size": 1}),
    "roberta_with_types": ("Roberta", {"type_vocab_size": 2, "hidden_act": "relu"}),
    "camembert": ("Camembert", {"type_vocab_size": 1}),
    "xlm_roberta_padding_0": ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 0}),
    "electra": ("Electra", {"embedding_size": 24}),
    "electra_projected": ("Electra", {"embedding_size": 16, "hidden_act": "gelu_new"}),
}
TASKS = {
    "text-classification": "SequenceClassification",
    "text-scoring": "SequenceClassification",
    "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_equal_transformers(name: str) -> None:
    prefix, overrides = VARIANTS[name]
    settings = {**BERT, "max_position_embeddings": 36, **overrides}
    for task, head in TASKS.items():
        labels = {"text-scoring": 1, "question-answering": 2}.get(task, 4)
        config = getattr(transformers, f"{prefix}Config")(**(settings | {"num_labels": labels}))
        reference = randomized(getattr(transformers, f"{prefix}For{head}")(config))
        raw = config.to_dict()
        parsed = FAMILY.parse_config(raw)
        assert parsed.max_position_embeddings + parsed.first_position == 36
        module = FAMILY.build(parsed, task, 0 if task == "question-answering" else labels, KERNELS["dense"])
        renamed = FAMILY.rename(reference.state_dict())
        assert renamed.keys() == module.state_dict().keys()
        module.load_state_dict(renamed)
        assert FAMILY.publish(module.state_dict(), parsed).keys() == reference.state_dict().keys()
        ids, mask, types = inputs_of(30, [30, 7, 1])
        ids = ids.clamp(min=parsed.pad_token_id + 1)
        named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        arguments = {key: named[key] for key in parsed.input_names}
        with torch.no_grad():
            out = reference(**{key: each.long() for key, each in arguments.items()})
            (found,) = module(*arguments.values())
        spans = task == "question-answering"
        expected = torch.stack((out.start_logits, out.end_logits), -1) if spans else out.logits
        seen = mask.bool() if expected.dim() == 3 else slice(None)
        torch.testing.assert_close(found[seen], expected[seen], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_roberta_fills_masks_as_transformers(tied: bool) -> None:
    config = transformers.RobertaConfig(**BERT, type_vocab_size=1, hidden_act="relu", tie_word_embeddings=tied)
    reference = randomized(transformers.RobertaForMaskedLM(config))
    parsed = FAMILY.parse_config(config.to_dict())
    module = FAMILY.build(parsed, "fill-mask", 0, KERNELS["dense"])
    renamed = FAMILY.rename(reference.state_dict())
    module.load_state_dict({name: renamed[name] for name in module.state_dict()})
    ids = inputs_of(12, [12])[0].clamp(min=2)
    with torch.no_grad():
        expected = reference(input_ids=ids.long()).logits[:, 5]
        (found,) = module(ids, torch.ones_like(ids), (torch.arange(12) == 5)[None].int())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_minilm_gives_the_golden_embeddings(assets: Path, kernel: str) -> None:
    folder = assets / "minilm-l6-v2"
    raw = json.loads((folder / "config.json").read_text())
    state = FAMILY.rename({key: value.float() for key, value in load_file(folder / "model.safetensors").items()})
    module = FAMILY.build(FAMILY.parse_config(raw), "text-embedding", 0, KERNELS[kernel])
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sentences = json.loads((folder / "golden_sentences.json").read_text())
    encodings = tokenizer.encode_batch(sentences)
    ids = torch.tensor([e.ids for e in encodings]).int()
    mask = torch.tensor([e.attention_mask for e in encodings]).int()
    with torch.no_grad():
        (embeddings,) = module(ids, mask, torch.zeros_like(ids))
    golden = load_file(folder / "golden_embeddings.safetensors")["embeddings"].float()
    torch.testing.assert_close(embeddings, golden, rtol=0, atol=1e-5)


def test_public_spellings_mean_the_same() -> None:
    """Base models have no prefix; wrappers add one; TensorFlow's first checkpoints say gamma and beta."""
    state = bert().state_dict()
    expected = FAMILY.rename(state)
    assert list(expected) == list(state)
    spellings = {
        "module.": {f"module.{name}": tensor for name, tensor in state.items()},
        "no prefix": {name.removeprefix("bert."): tensor for name, tensor in state.items()},
        "other prefix": {name.replace("bert.", "0.auto_model.", 1): tensor for name, tensor in state.items()},
        "gamma": {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        },
    }
    for spelling, renamed in spellings.items():
        result = FAMILY.rename(renamed)
        assert result.keys() == expected.keys(), spelling
        assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_heads_of_other_tasks_keep_their_names() -> None:
    torch.manual_seed(0)
    names = transformers.BertForPreTraining(transformers.BertConfig(**BERT)).state_dict()
    renamed = FAMILY.rename(names)
    heads = [name for name in renamed if name.startswith("cls.")]
    assert heads
    assert heads == [name for name in names if name.startswith("cls.")]


def test_two_names_for_one_tensor_are_refused() -> None:
    tensor = torch.zeros(1)
    with pytest.raises(InputError, match="twice"):
        FAMILY.rename({"bert.pooler.dense.bias": tensor, "pooler.dense.bias": tensor})


def test_distilbert_has_no_token_types() -> None:
    config = FAMILY.parse_config({"model_type": "distilbert", **DISTILBERT})
    assert config == BertConfig(50, 24, 2, 4, 40, "gelu", 33, 0, 1e-12, distilbert=True)
    module = FAMILY.build(config, "text-embedding", 0, KERNELS["dense"])
    (program,) = FAMILY.programs(module, config, ProgramOptions(seq_lens=(16,)))
    assert [spec.name for spec in program.inputs] == ["input_ids", "attention_mask"]
    assert [(spec.name, spec.shape) for spec in program.outputs] == [("embedding", (1, 24))]
    out = torch.export.export(module, program.example_inputs()).module()(*program.example_inputs())
    torch.testing.assert_close(out[0].norm(dim=1), torch.ones(1))


def test_full_sizes_have_the_public_keys() -> None:
    for model_type, reference_class, config in (
        ("bert", transformers.BertForSequenceClassification, transformers.BertConfig(num_labels=7)),
        ("distilbert", transformers.DistilBertForSequenceClassification, transformers.DistilBertConfig(num_labels=7)),
    ):
        with torch.device("meta"):
            reference = reference_class(config).state_dict()
            module = FAMILY.build(FAMILY.parse_config(config.to_dict()), "text-classification", 7, KERNELS["dense"])
        assert family_for({"model_type": model_type}) is FAMILY
        ours = {name: tensor.shape for name, tensor in module.state_dict().items()}
        assert ours == {name: tensor.shape for name, tensor in FAMILY.rename(reference).items()}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"position_embedding_type": "relative_key_query"}, "absolute"),
        ({"is_decoder": True}, "only encoders"),
        ({"hidden_act": "laplace"}, "gelu_new"),
        ({"hidden_size": 25}, "multiple of num_attention_heads"),
        ({"model_type": "distilbert", "activation": "nope"}, "activation must be one of"),
        ({"model_type": "distilbert", "dim": 0}, "dim must be an integer"),
    ],
)
def test_refuses_unsupported_configs(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FAMILY.parse_config(BERT | raw)


def test_unknown_model_type_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown model_type 'gpt-2'.*bert.*distilbert.*mobilebert"):
        family_for({"model_type": "gpt-2"})

"""Heads that score every token, of each text family, against transformers' own on random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from edgeformer.attention import KERNELS
from edgeformer.models.family import ProgramOptions, family_for
from edgeformer_runtime.errors import InputError
from tests.edgeformer.models.test_bert import BERT, DISTILBERT, inputs_of, randomized

MOBILEBERT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "embedding_size": 12,
    "intra_bottleneck_size": 12,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 33,
    "num_feedforward_networks": 2,
    "num_labels": 4,
}
FAMILIES = {"Bert": BERT, "DistilBert": DISTILBERT, "MobileBert": MOBILEBERT}
TASKS = {"question-answering": "QuestionAnswering", "token-classification": "TokenClassification"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_tokens_are_the_public_ones(name: str, task: str) -> None:
    torch.manual_seed(0)
    labels = 2 if task == "question-answering" else 4
    config = getattr(transformers, f"{name}Config")(**(FAMILIES[name] | {"num_labels": labels}))
    public = randomized(getattr(transformers, f"{name}For{TASKS[task]}")(config))
    raw = config.to_dict()
    family = family_for(raw)
    parsed = family.parse_config(raw)
    module = family.build(parsed, task, labels if task == "token-classification" else 0, KERNELS["dense"])
    state = family.rename(public.state_dict())
    module.load_state_dict({key: state[key] for key in module.state_dict()})
    assert all(family.is_unused(key) for key in state.keys() - module.state_dict().keys())
    with torch.no_grad():  # MobileBERT's embeddings see their neighbours: padding has to be silent
        for encoder in (public.base_model, module.encoder):
            encoder.embeddings.word_embeddings.weight[0] = 0
    ids, mask, types = inputs_of(16, [16, 9])
    ids = ids * mask
    (program,) = family.programs(module, parsed, ProgramOptions(seq_lens=(16,)))
    assert program.outputs[0].shape == (1, 16, labels)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    named = {spec.name: given[spec.name] for spec in program.inputs}
    with torch.no_grad():
        (found,) = module(*named.values())
        expected = public(**{key: value.long() for key, value in named.items()})
    if task == "question-answering":
        logits = torch.stack((expected.start_logits, expected.end_logits), -1)
    else:
        logits = expected.logits
    assert torch.allclose(found[mask == 1], logits[mask == 1], atol=1e-5 * float(logits.abs().max()))


def test_a_token_classifier_without_labels_is_refused() -> None:
    family = family_for({"model_type": "bert"})
    config = family.parse_config(transformers.BertConfig(**BERT).to_dict())
    with pytest.raises(InputError, match="token-classification needs labels"):
        family.build(config, "token-classification", 0, KERNELS["dense"])

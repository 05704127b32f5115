"""Pruned models compute what the whole ones do with the removed parts' outputs at zero."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.compress.corpus import TextData, make_corpus, read_data
from edgeformer.compress.model import Model, UnitGroup, open_model, skip, stacks, unit_groups, write_model
from edgeformer.compress.objective import answer
from edgeformer.compress.prune import choose_units, importance, prune, without_layers, without_units
from edgeformer.compress.recipe import Finetune, Prune, Recipe
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_whisper
from tests.edgeformer.compress import tiny

pytestmark = pytest.mark.slow
RECIPE = Recipe("test", (Finetune(),), seq_len=16)
SMALL_WHISPER = {"max_source_positions": 100, "d_model": 32, "encoder_layers": 2}

SAVE: dict[str, Callable[[Path], Path]] = {
    "mobilebert": tiny.save_classifier,
    "bert": tiny.save_bert,
    "distilbert": tiny.save_distilbert,
    "tinyvit": tiny.save_tinyvit,
    "whisper": partial(save_whisper, **SMALL_WHISPER),
}


@pytest.fixture(scope="module", params=list(SAVE))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVE[request.param](tmp_path_factory.mktemp("source") / request.param)


def data_for(model: Model, place: Path) -> str:
    """Data of the model's task."""
    if model.checkpoint.task == "image-classification":
        return str(tiny.save_images(place / "images"))
    if model.checkpoint.task == "speech-recognition":
        return str(tiny.save_clips(place / "clips"))
    return str(tiny.save_texts(place / "texts.json"))


def corpus_of(model: Model, place: Path) -> Any:
    data, _ = read_data(data_for(model, place), model.checkpoint)
    return make_corpus(data, model.checkpoint, None, RECIPE)


def silenced(module: nn.Module, kept: dict[UnitGroup, Tensor]) -> Any:
    """Hooks that set the outputs of the units that are not kept to zero."""

    def silence(mask: Tensor, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * mask,)

    for group, units in kept.items():
        reader = module.get_submodule(f"{group.layer}.{group.reader}")
        mask = torch.zeros(group.count)
        mask[units] = 1.0
        size = reader.in_features // group.count  # type: ignore[union-attr,operator]
        reader.register_forward_pre_hook(partial(silence, mask.repeat_interleave(int(size))))


def test_removed_units_leave_what_zeros_leave(folder: Path, tmp_path: Path) -> None:
    model = open_model(str(folder))
    inputs = corpus_of(model, tmp_path).batch(torch.arange(3), torch.Generator()).student
    kept = {group: torch.arange(1, group.count, 2) for group in unit_groups(model.module)}
    smaller = without_units(model, kept)
    silenced(model.module, kept)
    with torch.no_grad():
        torch.testing.assert_close(answer(smaller.module, inputs), answer(model.module, inputs), atol=1e-5, rtol=1e-5)
    before, after = (sum(p.numel() for p in each.module.parameters()) for each in (model, smaller))
    assert after < before
    write_model(smaller, tmp_path / "out")
    reopened = open_model(str(tmp_path / "out"))
    assert reopened.checkpoint.config == smaller.checkpoint.config
    with torch.no_grad():
        assert torch.equal(answer(reopened.module, inputs), answer(smaller.module, inputs))


def test_removed_layers_leave_what_skipping_leaves(folder: Path, tmp_path: Path) -> None:
    model = open_model(str(folder))
    inputs = corpus_of(model, tmp_path).batch(torch.arange(3), torch.Generator()).student
    layers = [layer for stack in stacks(model.module) for layer in stack.layers]
    number = len(layers) - 1
    smaller = without_layers(model, [number])
    assert sum(len(stack.layers) for stack in stacks(smaller.module)) == len(layers) - 1
    skip(layers[number])
    with torch.no_grad():
        torch.testing.assert_close(answer(smaller.module, inputs), answer(model.module, inputs), atol=1e-5, rtol=1e-5)
    write_model(smaller, tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not [key for key in raw if key.endswith("layer_widths")]  # every layer is whole: still the public format
    assert open_model(str(tmp_path / "out")).checkpoint.config == smaller.checkpoint.config


@pytest.mark.parametrize("kind", ["mobilebert", "tinyvit", "whisper"])
def test_pruned_models_convert(kind: str, tmp_path: Path) -> None:
    """Layers of different widths pass the gates: the bundle agrees with the checkpoint."""
    source = save_whisper(tmp_path / kind) if kind == "whisper" else SAVE[kind](tmp_path / kind)
    model = open_model(str(source))
    groups = unit_groups(model.module)
    kept = {group: torch.arange(max(1, group.count // (2 + number % 2))) for number, group in enumerate(groups)}
    write_model(without_units(model, kept), tmp_path / "pruned")
    lengths: dict[str, Any] = {"mobilebert": {"seq_lens": (16,)}, "whisper": {"audio_seconds": (2.5,)}}.get(kind, {})
    options = ConvertOptions(str(tmp_path / "pruned"), tmp_path / "dist", targets=("onnx",), **lengths)
    (row,) = convert(options)
    assert row.ok, row.problems


def test_importance_is_the_gradient_of_a_gate(tmp_path: Path) -> None:
    """Michel et al. 2019, equation 2: a factor before each head's output, and its gradient's mean absolute value."""
    model = open_model(str(tiny.save_bert(tmp_path / "bert")))
    corpus = corpus_of(model, tmp_path)
    batches = [corpus.batch(rows, torch.Generator()) for rows in torch.split(torch.arange(12), 5)]
    found = importance(model.module, batches)
    group = next(group for group in found if group.kind == "heads" and ".1" in group.layer)
    gates = torch.ones(group.count, requires_grad=True)
    reader = model.module.get_submodule(f"{group.layer}.{group.reader}")
    reader.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * gates.repeat_interleave(8),))
    expected = torch.zeros(group.count)
    for row in range(12):
        batch = corpus.batch(torch.tensor([row]), torch.Generator())
        loss = F.cross_entropy(answer(model.module, batch.student), batch.targets)
        expected += torch.autograd.grad(loss, gates)[0].abs() / 12
    torch.testing.assert_close(found[group], expected, atol=1e-6, rtol=1e-4)


def test_the_least_important_go_and_something_stays() -> None:
    groups = [UnitGroup(f"layer.{n}", "heads", 0, 4, "out", ()) for n in range(2)]
    scores = {groups[0]: torch.tensor([4.0, 3.0, 2.0, 1.0]), groups[1]: torch.tensor([0.1, 0.2, 0.3, 40.0])}
    kept = choose_units(scores, Prune(heads=0.5))
    # Normalised by layer: 0.73, 0.55, 0.37, 0.18 and 0.0025, 0.005, 0.0075, 1.
    assert [kept[group].tolist() for group in groups] == [[0, 1, 2], [3]]
    neurons = UnitGroup("layer.0", "neurons", 0, 40, "out", ())
    kept = choose_units({neurons: torch.arange(40.0)}, Prune(neurons=0.45, round_to=8))
    assert kept[neurons].tolist() == list(range(16, 40))  # 22 would stay, and kernels take 24
    kept = choose_units({neurons: torch.arange(40.0)}, Prune(neurons=0.99, round_to=8))
    assert len(kept[neurons]) == 8


def test_pruning_takes_the_layer_that_matters_least(tmp_path: Path) -> None:
    model = open_model(str(tiny.save_bert(tmp_path / "bert")))
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if ".layer.1." in name and ".output." in name and ".dense." in name:
                parameter.zero_()  # the second layer's halves add nothing to what comes in
            if name.startswith("classifier."):
                parameter.mul_(3000.0)  # sure of itself, so that every other change costs something
        batch = corpus_of(model, tmp_path).batch(torch.arange(12), torch.Generator())
        labels = answer(model.module, batch.student).argmax(dim=1).tolist()
    texts = tuple(text for each in tiny.SENTENCES.values() for text in each)
    corpus = make_corpus(TextData(texts, tuple(labels)), model.checkpoint, None, RECIPE)
    pruned = prune(model, corpus, Prune(layers=1), torch.Generator().manual_seed(0))
    assert pruned.layers == (1,)
    assert pruned.model.checkpoint.raw["num_hidden_layers"] == 2


def test_what_cannot_be_removed(tmp_path: Path) -> None:
    model = open_model(str(tiny.save_bert(tmp_path / "bert")))
    corpus = corpus_of(model, tmp_path)
    rng = torch.Generator()
    with pytest.raises(InputError, match="there is no layer 7: the model has 3"):
        prune(model, corpus, Prune(layers=(7,)), rng)
    with pytest.raises(InputError, match="cannot remove 3 of 3"):
        prune(model, corpus, Prune(layers=3), rng)
    with pytest.raises(InputError, match=r"nothing would be left of bert\.encoder\.layer"):
        prune(model, corpus, Prune(layers=(0, 1, 2)), rng)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([{"heads": 1, "neurons": [8]}], "must be a list with an entry for each of 3 layers"),
        ([{"heads": 9, "neurons": [8]}] * 3, "at most 4 heads and neurons of at most"),
        ([{"heads": 1, "neurons": [8, 8]}] * 3, "at most 4 heads and neurons of at most"),
        ([{"heads": 1, "neurons": 8}] * 3, "must be"),
        ([{"heads": 0, "neurons": [8]}] * 3, "heads must be an integer of at least 1"),
    ],
)
def test_widths_that_do_not_fit_are_refused(tmp_path: Path, widths: Any, message: str) -> None:
    folder = tiny.save_bert(tmp_path / "bert")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "layer_widths": widths}))
    with pytest.raises(InputError, match=message):
        open_model(str(folder))

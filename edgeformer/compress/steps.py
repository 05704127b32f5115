"""What each kind of step does: a model in, a model and its results out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.compress.corpus import Data, make_corpus
from edgeformer.compress.model import Model
from edgeformer.compress.objective import Objective
from edgeformer.compress.prune import Sparsifier, linear_layers, prune
from edgeformer.compress.quantize_aware import FakeQuantizer
from edgeformer.compress.recipe import (
    Augment,
    Distill,
    Finetune,
    Loss,
    Prune,
    QuantizeAware,
    Recipe,
    Sparsify,
    Training,
)
from edgeformer.compress.student import make_student
from edgeformer.compress.training import Run, train
from edgeformer_runtime.errors import InputError

Results = dict[str, Any]


@dataclass(frozen=True)
class StepContext:
    """What surrounds a step.

    Attributes:
        name: of the step, for people, states and random numbers: "2-distill".
        number: of the step, from 1.
        recipe: that the step is part of.
        data: to train on.
        teacher: opens the teacher.
        run: where to train.
    """

    name: str
    number: int
    recipe: Recipe
    data: Data
    teacher: Callable[[], Model]
    run: Run


def run_finetune(step: Finetune, model: Model, context: StepContext) -> tuple[Model, Results]:
    """Train on labels; the new head is made when the source is opened."""
    return model, _train(model, step.loss, step.training, step.augment, context)


def run_distill(step: Distill, model: Model, context: StepContext) -> tuple[Model, Results]:
    """Train a student, new or the model as it stands."""
    results: Results = {}
    if step.student is not None:
        made = make_student(step.student, context.teacher(), context.data, context.run.seed)
        model, results = made.model, {"tensors_from_teacher": made.taken, "tensors": made.total}
        context.run.say(f"{context.name}: {made.taken} of {made.total} tensors begin as the teacher's")
    results |= _train(model, step.loss, step.training, step.augment, context)
    if step.student is not None:
        _continue_positions(model.module, context.recipe.seq_len)
    return model, results


def run_prune(step: Prune, model: Model, context: StepContext) -> tuple[Model, Results]:
    """Remove heads, neurons and layers."""
    corpus = make_corpus(context.data, model.checkpoint, None, context.recipe)
    pruned = prune(model, corpus, step, context.run.generator(context.name))
    removed = {"heads": pruned.heads, "neurons": pruned.neurons, "layers": list(pruned.layers)}
    return pruned.model, {"removed": removed}


def run_sparsify(step: Sparsify, model: Model, context: StepContext) -> tuple[Model, Results]:
    """Train while weights become zero."""
    sparsifier = Sparsifier(model.module, step)
    return model, _train(model, step.loss, step.training, step.augment, context, sparsifier)


def run_quantize_aware(step: QuantizeAware, model: Model, context: StepContext) -> tuple[Model, Results]:
    """Train with rounded weights and activations."""
    quantizer = FakeQuantizer(model.module, step)
    results = _train(model, step.loss, step.training, step.augment, context)
    quantizer.finish()
    return model, {**results, "plan": quantizer.plan.to_json()}


RUNNERS: Mapping[str, Callable[[Any, Model, StepContext], tuple[Model, Results]]] = {
    Finetune.kind: run_finetune,
    Distill.kind: run_distill,
    Prune.kind: run_prune,
    Sparsify.kind: run_sparsify,
    QuantizeAware.kind: run_quantize_aware,
}


def size_of(module: nn.Module) -> Results:
    """Parameters of a model, and the zeros among the weights of its linear layers."""
    weights = [layer.weight.detach() for layer in linear_layers(module)]
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "linear_weights": sum(weight.numel() for weight in weights),
        "linear_zeros": sum(int((weight == 0).sum()) for weight in weights),
    }


def _train(
    model: Model,
    loss: Loss,
    training: Training,
    augment: Augment,
    context: StepContext,
    sparsifier: Sparsifier | None = None,
) -> Results:
    """Train a model in place."""
    run, data = context.run, context.data
    teacher = context.teacher() if loss.needs_teacher or augment.variants else None
    if teacher is not None:
        check_same_task(teacher.checkpoint, model.checkpoint)
    if augment.variants:
        assert teacher is not None
        data = data.with_variants(augment.variants, teacher.checkpoint, teacher.module.state_dict(), run.seed)
    torch.manual_seed(run.seed)
    described = teacher.checkpoint if teacher is not None and loss.needs_teacher else None
    corpus = make_corpus(data, model.checkpoint, described, context.recipe, augment)
    if loss.looks_inside and corpus.mismatched:
        raise InputError(
            f"{corpus.mismatched} of {len(corpus.lengths)} texts have other tokens at the teacher: hidden and "
            "attention compare token by token, so both need the same tokens; or leave hidden and attention out"
        )
    objective = Objective(model.module, None if teacher is None else teacher.module, loss)
    if objective.teacher is not None:
        first = corpus.batch(torch.tensor([0]), run.generator(context.name))
        objective.build_bridges(first.student, first.teacher)
    trained = train(objective, corpus, training, run, context.name, sparsifier)
    return {"examples": len(corpus.lengths), "updates": trained.updates, "loss": trained.loss}


def check_same_task(teacher: Checkpoint, student: Checkpoint) -> None:
    """Refuse a teacher that answers other questions.

    Raises:
        InputError: another task, or other labels.
    """
    if teacher.task != student.task:
        raise InputError(
            f"the teacher {teacher.source.id} does {teacher.task} and the student {student.task}: expected one task"
        )
    if teacher.labels != student.labels:
        raise InputError(
            f"the teacher {teacher.source.id} and the student have other labels, or in another order: "
            f"{len(teacher.labels)} ({', '.join(teacher.labels[:3])}, ...) and "
            f"{len(student.labels)} ({', '.join(student.labels[:3])}, ...)"
        )


@torch.no_grad()
def _continue_positions(module: nn.Module, seen: int) -> None:
    """Give positions that training never saw the mean of the last ones that it saw."""
    for name, positions in module.named_parameters():
        if name.endswith("embeddings.position_embeddings.weight") and seen < len(positions):
            positions[seen:] = positions[seen - max(1, seen // 4) : seen].mean(dim=0)

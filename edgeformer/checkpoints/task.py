"""What a public checkpoint is for: its task, its labels, and how its logits become scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeformer.checkpoints import weights
from edgeformer.checkpoints.sentence import SentenceFiles
from edgeformer.models.config import MAX_LABELS_BYTES, read_list, read_text
from edgeformer.models.family import Family, unwrapped
from edgeformer.models.text import TWO_LABELS
from edgeformer.tasks.task import TASKS, check_task
from edgeformer.tasks.text import CLASSIFICATION, EMBEDDING, SCORING
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

_ACTIVATIONS = {
    None: "softmax",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}

HEADS_OF_NO_TASK = {
    "ForPreTraining": "was pre-trained and not fine-tuned for a task",
    "LMHeadModel": "predicts the next token",
    "ForNextSentencePrediction": "predicts whether a sentence follows",
    "ForMultipleChoice": "chooses between answers",
}
"""Heads of transformers' text models that no task here has, by what their classes' names end in."""


def task_of(
    family: Family[Any],
    raw: Mapping[str, Any],
    files: tuple[Path, ...],
    asked: str | None,
    sentence: SentenceFiles,
    new_head: bool = False,
) -> str:
    """The task asked for, or the one that the checkpoint was made for.

    Args:
        family: the checkpoint's family.
        raw: its config.json.
        files: its weight files; a classifier among the weights decides where the config is silent.
        asked: the user's choice or None.
        sentence: what sentence-transformers' files say, which decides before the config.
        new_head: whoever asks puts another head on the model: what its own is for does not matter.

    Raises:
        InputError: a task that the family does not have, or a checkpoint that says too little.
    """
    able = {name: task for name, task in TASKS.items() if task.built_as in family.tasks}
    headless = next((name for name, task in able.items() if task.architecture is None), EMBEDDING.name)
    check_task(asked, tuple(able), f"task for {family.name}")
    if len(family.tasks) == 1:
        return asked or family.tasks[0]
    if new_head:
        return asked or headless
    if asked is not None and not TASKS[asked].heads:
        return asked
    if asked is None and (sentence.is_embedder or sentence.is_cross_encoder):
        return _by_labels(CLASSIFICATION.name, family, raw) if sentence.is_cross_encoder else EMBEDDING.name
    found = _made_for(family, raw, files, asked, headless)
    return asked or found


def _by_labels(found: str, family: Family[Any], raw: Mapping[str, Any]) -> str:
    """A classifier with one label gives a score; what else was found stays."""
    if found != CLASSIFICATION.name:
        return found
    try:
        return SCORING.name if len(family.parse_labels(raw)) == 1 else found
    except InputError:  # gaps, which a file of labels may mend
        return found


def _made_for(
    family: Family[Any], raw: Mapping[str, Any], files: tuple[Path, ...], asked: str | None, headless: str
) -> str:
    """Which of a family's tasks, by the class that a model was saved as; of none, by its tensors.

    `headless`: the task of one that has no head.
    """
    names = [str(name) for name in raw.get("architectures") or []]
    for task in TASKS.values():
        made = next((name for name in names if task.architecture and task.architecture in name), None)
        if made is not None:
            if asked is not None and TASKS[asked].architecture != task.architecture:
                raise InputError(
                    f"config.json: a {made} does {task.name} and has no head for {asked}: leave --task out, or say "
                    f"--task {headless} for the vectors of its encoder"
                )
            return _by_labels(task.name, family, raw)
    if asked is not None and any(name.endswith(TASKS[asked].also_in) for name in names):
        return asked
    for name in names:
        found = next((what for ending, what in HEADS_OF_NO_TASK.items() if name.endswith(ending)), None)
        if found is not None:
            raise InputError(
                f"config.json: a {name} {found}, which is no task here: fine-tune it for one of {_architectures()}, "
                f"or say --task {headless} for the vectors of its encoder"
            )
    if asked is not None:
        return asked
    if any(name.endswith("Model") for name in names):
        return headless
    if names:
        raise InputError(
            f"config.json: a {names[0]} is not known: expected a ...{_architectures()} or ...Model; say --task "
            f"{headless} for the vectors of its encoder"
        )
    if raw.get("classifier_activation") is False:
        raise InputError(
            "config.json names no architectures, and with classifier_activation false a classifier of texts looks like "
            'one of tokens: add "architectures": ["MobileBertForSequenceClassification"] if it is one'
        )
    heads = {unwrapped(name).partition(".")[0] for name in weights.weight_shapes(files)}
    with_heads = (task for task in TASKS.values() if task.architecture and task.heads)
    able = (task.name for task in with_heads if task.heads[0].rstrip(".") in heads)
    return _by_labels(next((name for name in able if name in family.tasks), headless), family, raw)


def _architectures() -> str:
    """What classes of transformers with a head that a task here has end in, for messages."""
    return ", ".join(task.architecture for task in TASKS.values() if task.architecture)


def labels_of(
    family: Family[Any], task: str, raw: Mapping[str, Any], given: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """The labels in the order of the logits, as given or from the config; none where the task has none.

    Raises:
        InputError: a count that does not fit, a label twice, or a regression.
    """
    if not TASKS[task].labelled:
        if given is not None:
            raise InputError(f"labels belong to a classifier, and the task is {task}: leave them out")
        return ()
    labels = _labels(family, raw, given)
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice and TASKS[task].labels_differ:
        raise InputError(f"labels must differ, found {', '.join(map(repr, twice))} more than once")
    if not all(labels):
        raise InputError("labels must not be empty")
    if len(labels) != 1 and task == SCORING.name:
        raise InputError(f"{task} gives one score, and the checkpoint has {len(labels)} labels: leave --task out")
    if len(labels) < 2 and task == CLASSIFICATION.name:
        raise InputError(
            f"the checkpoint has one label, so it is a regression or a reranker and no classifier: {TWO_LABELS}"
        )
    return labels


def _labels(family: Family[Any], raw: Mapping[str, Any], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The config's, or given ones, which may also mend an id2label with gaps: then the weights tell their number."""
    if given is None:
        return family.parse_labels(raw)
    try:
        count = len(family.parse_labels(raw))
    except InputError:
        return given
    if len(given) != count:
        raise InputError(f"expected {count} labels, as the checkpoint's config.json has, found {len(given)}")
    return given


def label_notes(labels: tuple[str, ...], raw: Mapping[str, Any]) -> tuple[str, ...]:
    """A note where the config's label2id says something else than the labels that answers have."""
    stated = raw.get("label2id")
    if not isinstance(stated, Mapping):
        return ()
    known = {label: number for number, label in enumerate(labels)}
    other = [label for label, number in stated.items() if labels and known.get(label) != number]
    if not other:
        return ()
    return (
        f"config.json: label2id has {shorten(other[0], 40)} as {shorten(stated[other[0]], 20)}, and the labels do not: "
        "they are those of id2label, as in transformers' pipelines: name others with --labels FILE",
    )


def activation_of(task: str, raw: Mapping[str, Any]) -> str:
    """ "softmax" or "sigmoid", from the config's problem_type."""
    problem_type = raw.get("problem_type")
    if task == SCORING.name:
        return _score_activation(raw)
    if not TASKS[task].labelled:
        return "softmax"
    if problem_type not in _ACTIVATIONS:
        known = ", ".join(str(name) for name in _ACTIVATIONS if name)
        raise InputError(f"config.json: problem_type must be one of {known}, found {problem_type!r}")
    return _ACTIVATIONS[problem_type]


_LIBRARY_ACTIVATIONS = {"Sigmoid": "sigmoid", "Identity": "none"}


def _score_activation(raw: Mapping[str, Any]) -> str:
    """ "sigmoid" or "none": as sentence-transformers notes it for a CrossEncoder, or as transformers decides."""
    noted = raw.get("sentence_transformers")
    stated = noted.get("activation_fn") if isinstance(noted, Mapping) else None
    stated = stated or raw.get("sbert_ce_default_activation_function")
    if stated is None:
        return "none" if raw.get("problem_type") == "regression" else "sigmoid"
    name = str(stated).rpartition(".")[2]
    if name not in _LIBRARY_ACTIVATIONS:
        known = ", ".join(_LIBRARY_ACTIVATIONS)
        raise InputError(f"config.json: activation_fn must be one of {known}, found {shorten(stated)}")
    return _LIBRARY_ACTIVATIONS[name]


def read_labels(path: Path) -> tuple[str, ...]:
    """A JSON list of strings, or one label per line.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    text = read_text(path, MAX_LABELS_BYTES, f"the labels in {path.name}")
    if text.lstrip().startswith("["):
        labels: Sequence[Any] = read_list(path)
        if not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path.name} must be a list of strings")
        return tuple(labels)
    return tuple(line.strip() for line in text.strip().split("\n"))

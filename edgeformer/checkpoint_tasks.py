"""What a public checkpoint is for: its task, its labels, and how its logits become scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeformer import weight_files
from edgeformer.families import Family
from edgeformer.tasks import CLASSIFICATION, EMBEDDING, SPEECH
from edgeformer_runtime.errors import InputError

_ACTIVATIONS = {
    None: "softmax",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}

_POOLING_MODE = "pooling_mode_"


def task_of(family: Family, raw: Mapping[str, Any], folder: Path, files: tuple[Path, ...], asked: str | None) -> str:
    """The task asked for, or the one that the checkpoint was made for.

    Args:
        family: the checkpoint's family.
        raw: its config.json.
        folder: its files; a sentence-transformers modules.json decides.
        files: its weight files; a classifier among the weights decides where the config is silent.
        asked: the user's choice or None.

    Raises:
        InputError: a task that the family does not have, or a checkpoint that says too little.
    """
    if asked is not None and asked not in family.tasks:
        raise InputError(f"unknown task {asked!r} for {family.name}: expected one of {', '.join(family.tasks)}")
    task = asked or (family.tasks[0] if len(family.tasks) == 1 else _made_for(raw, folder, files))
    if task not in family.tasks:
        raise InputError(f"{family.name} cannot do {task}: expected one of {', '.join(family.tasks)}")
    if task == EMBEDDING and (folder / "modules.json").is_file():
        _check_sentence_transformer(folder)
    return task


def _made_for(raw: Mapping[str, Any], folder: Path, files: tuple[Path, ...]) -> str:
    if (folder / "modules.json").is_file():
        return EMBEDDING
    names = [str(name) for name in raw.get("architectures") or []]
    if any(name.endswith("ForSequenceClassification") for name in names):
        return CLASSIFICATION
    if any(name.endswith(("Model", "ForMaskedLM", "ForPreTraining")) for name in names):
        return EMBEDDING
    if names:
        raise InputError(f"a {names[0]} has no task here: name one with --task ({CLASSIFICATION}, {EMBEDDING})")
    heads = {name.removeprefix("module.").partition(".")[0] for name in weight_files.weight_shapes(files)}
    return CLASSIFICATION if "classifier" in heads else EMBEDDING


def _check_sentence_transformer(folder: Path) -> None:
    """Refuse everything but mean pooling: our embedder does that and scales to norm 1."""
    for module in _read_list(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise InputError(
                f"modules.json: expected Transformer, mean Pooling and Normalize, found {kind or module!r}"
            )
        if kind == "Pooling":
            _check_pooling(folder / str(module.get("path", "")) / "config.json", folder)


def _check_pooling(path: Path, folder: Path) -> None:
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise InputError("modules.json names a Pooling module whose config.json is not there")
    config = _read_json(path)
    mode = config.get("pooling_mode") if isinstance(config, dict) else None
    modes = (
        [mode]
        if isinstance(mode, str)
        else [
            name.removeprefix(_POOLING_MODE)
            for name, on in dict(config).items()
            if name.startswith(_POOLING_MODE) and on
        ]
    )
    if modes not in (["mean_tokens"], ["mean"]):
        raise InputError(f"pooling must be the mean of the tokens alone, found {', '.join(modes) or 'none'}")


def labels_of(family: Family, task: str, raw: Mapping[str, Any], labels_file: Path | None) -> tuple[str, ...]:
    """The labels in the order of the logits, from the file or from the config; none where the task has none.

    Raises:
        InputError: a count that does not fit, a label twice, or a regression.
    """
    if task in (EMBEDDING, SPEECH):
        if labels_file is not None:
            raise InputError(f"labels belong to a classifier, and the task is {task}: leave them out")
        return ()
    labels = family.parse_labels(raw)
    if labels_file is not None:
        given = _read_labels(labels_file)
        if len(given) != len(labels):
            raise InputError(f"{labels_file.name} holds {len(given)} labels, and the checkpoint has {len(labels)}")
        labels = given
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        raise InputError(f"labels must differ, found {', '.join(map(repr, twice))} more than once")
    if not all(labels):
        raise InputError("labels must not be empty")
    if len(labels) < 2:
        raise InputError("the checkpoint has one label, which makes it a regression: expected a classifier")
    return labels


def activation_of(task: str, raw: Mapping[str, Any]) -> str:
    """ "softmax" or "sigmoid", from the config's problem_type."""
    problem_type = raw.get("problem_type")
    if task != CLASSIFICATION:
        return "softmax"
    if problem_type not in _ACTIVATIONS:
        known = ", ".join(str(name) for name in _ACTIVATIONS if name)
        raise InputError(f"config: problem_type must be one of {known}, found {problem_type!r}")
    return _ACTIVATIONS[problem_type]


def _read_labels(path: Path) -> tuple[str, ...]:
    """A JSON list of strings, or one label per line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the labels in {path.name}: {error}") from None
    if text.lstrip().startswith("["):
        labels: Sequence[Any] = _read_list(path)
        if not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path.name} must be a list of strings")
        return tuple(labels)
    return tuple(line.strip() for line in text.strip().split("\n"))


def _read_list(path: Path) -> list[Any]:
    value = _read_json(path)
    if not isinstance(value, list):
        raise InputError(f"{path.name} must hold a JSON list, found {type(value).__name__}")
    return value


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path.name}: {error}") from None

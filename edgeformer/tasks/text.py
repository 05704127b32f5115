"""The tasks of whole texts: what surrounds such a model, and texts to judge it by."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import Metric, Peers, Task, TaskSpec, Training
from edgeformer_runtime.bundle.manifest import Classification, Embedding, Manifest, ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.specs import Score
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program
    from edgeformer_runtime.pipelines.text import TextPipeline
    from edgeformer_runtime.preprocess.text import Encoded, TextEncoder

Item = TypeVar("Item")

TOKENIZER_FILE = "tokenizer.json"
MAX_CALIBRATION_SAMPLES = 128
TOKEN_SEQUENCES = 96
"""Drawn for a model without a tokenizer."""

# What keyboards and other apps send: plain sentences, a pair, nothing, other scripts, emoji, control characters.
TEXTS: tuple[dict[str, Any], ...] = (
    {"text": "turn the lights off in the living room"},
    {"text": "What's the weather like in Zürich tomorrow?", "pair": "It will rain until noon."},
    {"text": ""},
    {"text": "naïve café \u2014 \u201cquoted\u201d, 3.14 & 50 % off! \U0001f600\U0001f44d\U0001f3fd"},
    {"text": "שלום مرحبا 你好 สวัสดี"},
    {"text": "tab\there\nnew line\u0000nul \u200bzero width"},
)
FILLER = "please remind me to call the bank about my savings account before the meeting on friday afternoon"


def text_spec(task: Task, checkpoint: Checkpoint, programs: tuple[Program, ...], head: Any) -> TaskSpec:
    """What surrounds a model of texts that answers with `head`, the manifest's postprocessing."""
    tokenizer, vocab_size = checkpoint.tokenizer_json, checkpoint.config.vocab_size
    lengths = bucket_lengths(programs)
    return TaskSpec(
        task=task,
        preprocessing=TextPreprocessing(TOKENIZER_FILE if tokenizer else None, checkpoint.pad_token_id, vocab_size),
        postprocessing=head,
        assets={TOKENIZER_FILE: tokenizer.encode()} if tokenizer else {},
        samples=texts(lengths, _counter(tokenizer)) if tokenizer else tuple(token_ids(lengths, vocab_size)),
    )


def _counter(tokenizer: str) -> Callable[[str], int]:
    """How many tokens a text has, special ones included."""
    from edgeformer_runtime.preprocess.tokenizer import Tokenizer

    library = Tokenizer(tokenizer, TOKENIZER_FILE)
    return lambda text: len(library.encode(text).ids)


def _classification(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    return text_spec(CLASSIFICATION, checkpoint, programs, Classification(checkpoint.labels, checkpoint.activation))


def _scoring(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    return text_spec(SCORING, checkpoint, programs, Score(checkpoint.activation))


def _embedding(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    output = programs[0].outputs[0]
    return text_spec(EMBEDDING, checkpoint, programs, Embedding(output.shape[-1], checkpoint.head.normalize))


def bucket_lengths(programs: Sequence[Program] | Sequence[ProgramSpec]) -> list[int]:
    """Of the buckets, rising."""
    return sorted(program.inputs[0].shape[1] for program in programs)


def _program_options(manifest: Manifest) -> ProgramOptions:
    return ProgramOptions(seq_lens=tuple(program.inputs[0].shape[1] for program in manifest.programs))


# Inputs that vectors are recorded from.


def texts(lengths: Sequence[int], count: Callable[[str], int]) -> tuple[dict[str, Any], ...]:
    """`TEXTS`, and for each bucket a text that fills it: its latency is then that of so many tokens everywhere.

    Args:
        lengths: of the buckets, rising.
        count: the tokens of a text, special ones included.
    """
    return TEXTS + tuple({"text": _filling(length, count)} for length in lengths)


def _filling(length: int, count: Callable[[str], int]) -> str:
    """As many words as fit into so many tokens, and then letters: their tokens are one each, or the text ends."""
    text = ""
    for more in (*itertools.islice(itertools.cycle(FILLER.split()), length), *["a"] * length):
        longer = f"{text} {more}".strip()
        if count(longer) <= length:
            text = longer
    return text


def token_ids(lengths: Sequence[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """For each bucket, sequences that fill it by a little over a half, by three quarters and wholly."""
    generator = random.Random(0)
    for length in lengths:
        for count in (length // 2 + 1, length * 3 // 4, length):
            yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}


# Calibration.


def calibrate(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    """Programs with texts as calibration inputs, `MAX_CALIBRATION_SAMPLES` at most.

    Each text goes to the smallest bucket that it fits; a bucket that none fits gets all, cut or filled up.

    Raises:
        InputError: the model has no tokenizer, or the data hold no texts.
    """
    from edgeformer.data.labelled import spread

    chosen = spread(calibration_texts(data), MAX_CALIBRATION_SAMPLES)
    return calibrate_on(programs, spec, chosen, lambda encoder, text: (encoder.encode(text),))


def calibrate_on(
    programs: tuple[Program, ...],
    spec: TaskSpec,
    chosen: Sequence[Item],
    encode: Callable[[TextEncoder, Item], Iterable[Encoded]],
    windowed: bool = False,
) -> tuple[Program, ...]:
    """Programs with what `encode` makes of each item as calibration inputs; `windowed` is of the encoder."""
    import torch

    from edgeformer_runtime.preprocess.text import TextEncoder

    reads = spec.preprocessing
    assert isinstance(reads, TextPreprocessing)
    if reads.tokenizer is None:
        raise InputError("calibration takes texts, and this model has no tokenizer: leave --calibration out")
    tokenizer = spec.assets[reads.tokenizer].decode()
    specs = {program.name: ProgramSpec(program.name, "", "", program.inputs, program.outputs) for program in programs}
    encoder = TextEncoder(reads, tokenizer, list(specs.values()), windowed)
    found: dict[str, list[Mapping[str, NDArray[Any]]]] = {name: [] for name in specs}
    for item in chosen:
        for encoded in encode(encoder, item):
            found[encoded.program].append(encoded.inputs)
    for name in specs:
        if not found[name]:
            alone = TextEncoder(reads, tokenizer, [specs[name]], windowed)
            found[name] = [encoded.inputs for item in chosen for encoded in encode(alone, item)]
    return tuple(
        replace(
            program,
            calibration=tuple(
                tuple(torch.from_numpy(inputs[each.name]) for each in program.inputs) for inputs in found[program.name]
            ),
        )
        for program in programs
    )


def calibration_texts(data: Path) -> Sequence[str]:
    """The texts of a file for calibration.

    Raises:
        InputError: it holds none.
    """
    from edgeformer.data.labelled import TEXT_COLUMNS, locate, read_pairs
    from edgeformer.models.config import MAX_TABLE_BYTES, read_text

    if data.suffix.lower() == ".txt" and data.is_file():
        lines = [line.strip() for line in read_text(data, MAX_TABLE_BYTES, str(data)).splitlines()]
        found = [line for line in lines if line]
    else:
        path, key = locate(str(data))
        if path.is_dir():
            raise InputError(f"no calibration texts: {data} is a folder; expected a .csv, .tsv, .json, .jsonl or .txt")
        found = [row.input for row in read_pairs(path, key, TEXT_COLUMNS)]
    if not found:
        raise InputError(f"no calibration texts in {data}: expected a text in each row")
    return found


@cache
def sentences() -> tuple[str, ...]:
    """Texts that a conversion is judged on where nobody gave any: orders, questions, opinions, news, small talk.

    They were written for this purpose. No classifier was trained on them, so their answers often lie near a boundary: a
    gate counts those apart.
    """
    return tuple(Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines())


PAIRS = 6
"""So many sentences come a second time with the next one as their pair."""
LONG_PARTS = (4, 5, 6)
"""Eighths of the largest bucket that texts of several sentences have in words, and of the others the middle one: each
bucket's own limits are judged, too."""
MOST_POSITIONS = 1 << 15
FEWEST = 48
"""Where the smallest bucket is so long that all sentences would take more positions, fewer are judged, of 512 tokens
64: each costs a second in the slowest engine."""


def gate_texts(lengths: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The sentences, some as pairs, and for each bucket texts of several that need it, in the form of vectors.

    Args:
        lengths: of the buckets, rising.
    """
    from edgeformer.data.labelled import spread

    known = sentences()
    single = [{"text": text} for text in spread(known, max(FEWEST, MOST_POSITIONS // lengths[0]))]
    pairs = [{"text": known[2 * index], "pair": known[2 * index + 1]} for index in range(PAIRS)]
    words = itertools.cycle(" ".join(known).split())
    # A word is a token or a little more: see `texts`.
    long = [
        {"text": " ".join(itertools.islice(words, max(1, length * part // 8)))}
        for length in lengths
        for part in (LONG_PARTS if length == lengths[-1] else LONG_PARTS[1:2])
    ]
    return (*single, *pairs, *long)


def _gate_inputs(pipeline: TextPipeline[Any]) -> Iterator[tuple[str, Any]]:
    """Ordinary texts, or drawn token ids where there is no tokenizer."""
    manifest = pipeline.bundle.manifest
    spec, lengths = manifest.preprocessing, bucket_lengths(manifest.programs)
    assert isinstance(spec, TextPreprocessing)
    stored = gate_texts(lengths) if spec.tokenizer else _drawn_ids(lengths, spec.vocab_size or 1)
    return ((shorten(each), pipeline.raw_from_json(each)) for each in stored)


def _drawn_ids(lengths: Sequence[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """Sequences of drawn ids, from 2 to the largest bucket long."""
    generator = random.Random(1)
    for _ in range(TOKEN_SEQUENCES):
        count = generator.randint(2, lengths[-1])
        yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}


# The records.


ACCURACY = Metric(
    name="accuracy",
    change="accuracy_drop",
    is_error=False,
    answers="edgeformer.evaluate.classification:best_labels",
    noun="accuracy",
)
"""The share of inputs whose best label is the right one."""

SPEARMAN = Metric(
    name="spearman",
    change="spearman_drop",
    is_error=False,
    answers="edgeformer.evaluate.embeddings:scored_pairs",
    noun="Spearman correlation",
    interval="edgeformer.evaluate.embeddings:correlation_interval",
    alike="edgeformer.evaluate.embeddings:mean_cosine",
)
"""Of the cosines of pairs of texts with the scores that people gave them."""

TENSOR_PEERS = Peers(("onnxruntime", "openvino", "torch", "ncnn"), "edgeformer.bench.peers:tensor_contenders")
TEXT_PEERS = replace(TENSOR_PEERS, over_data="edgeformer.bench.data:TEXTS")
"""What runs text and image models."""

CLASSIFICATION = Task(
    name="text-classification",
    noun="text classifier",
    takes="text",
    spec=_classification,
    evaluation="edgeformer.evaluate.classification:evaluate_classification",
    peers=TEXT_PEERS,
    aliases=("classification", "classifier", "sentimentanalysis", "sequenceclassification"),
    pack="edgeformer.models.packed:packed_program",
    architecture="ForSequenceClassification",
    labelled=True,
    judged_by_labels=True,
    heads=("classifier.", "pre_classifier.", "pooler."),
    headless="the checkpoint has no classifier: fine-tune it, or ask for the task text-embedding",
    scores="edgeformer.models.score_range:text_scores",
    score_backstop="probability",
    program_options=_program_options,
    calibrate=calibrate,
    gate_inputs=_gate_inputs,
    agreement="edgeformer.convert.agreement:compare_labels",
    metric=ACCURACY,
    training=Training(
        read="edgeformer.compress.corpus:read_texts",
        probe="edgeformer.compress.budget.sensitivity:Probe",
        recipes=("prune-quarter", "prune-half", "mobilebert-student"),
        student="edgeformer.compress.student:text_student",
    ),
    checks={
        "labels": "edgeformer.doctor.check_task:check_labels",
        "tokenizer": "edgeformer.doctor.check_task:check_encoding",
    },
)

EMBEDDING = Task(
    name="text-embedding",
    noun="sentence embedder",
    takes="text",
    spec=_embedding,
    evaluation="edgeformer.evaluate.embeddings:evaluate_embeddings",
    peers=TEXT_PEERS,
    aliases=("embedding", "featureextraction", "sentencesimilarity"),
    pack=CLASSIFICATION.pack,
    pooled=True,
    scores="edgeformer.models.score_range:text_scores",
    score_backstop="component",
    program_options=_program_options,
    calibrate=calibrate,
    gate_inputs=_gate_inputs,
    agreement="edgeformer.convert.agreement:compare_embeddings",
    metric=SPEARMAN,
    checks={"tokenizer": "edgeformer.doctor.check_task:check_encoding"},
)

SCORING = replace(
    CLASSIFICATION,
    name="text-scoring",
    noun="text scorer",
    spec=_scoring,
    evaluation="edgeformer.evaluate.embeddings:evaluate_scores",
    aliases=("reranker", "reranking", "crossencoder", "textranking", "regression", "textsimilarity"),
    judged_by_labels=False,
    headless="the checkpoint has no head that scores: fine-tune it, or ask for the task text-embedding",
    agreement="edgeformer.convert.agreement:compare_scores",
    metric=None,
    training=None,
    checks={"tokenizer": CLASSIFICATION.checks["tokenizer"]},
)

"""Trains the zoo's clinc150-mobilebert: a small MobileBERT taught by MiniLM.

    python -m tools.zoo.train_clinc150 --data data_small.json --teacher minilm-l6-v2 --out DIR
    python -m tools.zoo.train_clinc150 --data data_small.json --evaluate DIR

A linear classifier on the frozen sentence embeddings of the teacher is fitted first. The student then learns the
classifier's logits (Hinton et al. 2015) on the training sentences and on variants of them.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.compress.augment import variant, word_neighbours
from edgeformer.compress.corpus import NO_LABEL, Batch, Encoded, Inputs, encode
from edgeformer.compress.objective import Objective
from edgeformer.compress.recipe import Loss, Training
from edgeformer.compress.student import shrink_tokenizer
from edgeformer.compress.training import Run, open_accelerator, train
from edgeformer.models import mobilebert
from edgeformer.models.text import TextClassifier
from edgeformer_runtime.cli.console import Bars
from edgeformer_runtime.delivery import work_folder
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.interface import Progress, silent
from tools.zoo.clinc150_data import Clinc150, Split, load_clinc150
from tools.zoo.publish import CARD, public_config, publish

SEQ_LEN = 32
"""Longest sentence in training; the longest of the data has as many tokens."""

VARIANTS = 4
HEAD_SCALE = 20.0
"""Length of a class's weight vector to begin with: embeddings have length 1, and logits should differ by several."""
HEAD_TRAINING = Training(epochs=30, batch_size=256, learning_rate=0.02, schedule="constant", warmup=0.0, clip_norm=0.0)
STUDENT_TRAINING = Training(epochs=5, batch_size=64, learning_rate=2e-3, schedule="cosine")
"""Keeps zeros, so the padding's embedding: the trigram sees the first padding after a sentence, which must look like
the end of the bucket."""
STUDENT_LOSS = Loss(labels=0.2, logits=1.0, temperature=2.0)
"""The true labels' cross-entropy counts on sentences that have one."""

VOCAB_SIZE = 7000
PAD = 0
EMBEDDING_STD = 0.3

ARCHITECTURE = {
    "vocab_size": VOCAB_SIZE,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intra_bottleneck_size": 128,
    "intermediate_size": 256,
    "num_feedforward_networks": 2,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "hidden_act": "relu",
    # From scratch and at this learning rate no_norm diverges: the paper reaches it by distilling layer by layer.
    "normalization_type": "layer_norm",
    "trigram_input": True,
    "use_bottleneck": True,
    "use_bottleneck_attention": False,
    "key_query_shared_bottleneck": True,
    "classifier_activation": True,
}


@dataclass(frozen=True)
class Lessons:
    """What the student learns from, as a corpus: token ids, the teacher's logits (N, 150), and labels or NO_LABEL.

    The logits stand where a teacher's inputs do: the teacher that the loop asks passes them on.
    """

    ids: Encoded
    logits: Tensor
    labels: Tensor
    fixed = True
    mismatched = 0

    @property
    def lengths(self) -> Tensor:
        """(N,) tokens of each sentence."""
        return self.ids.lengths

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """See `Corpus`."""
        return Batch(rows, self.ids.inputs(rows), (self.logits[rows],), self.labels[rows])


@dataclass(frozen=True)
class Embeddings:
    """Sentence embeddings (N, C) and their labels (N,), as a corpus."""

    values: Tensor
    labels: Tensor
    fixed = True
    mismatched = 0

    @property
    def lengths(self) -> Tensor:
        """All are alike."""
        return torch.ones(len(self.labels), dtype=torch.int64)

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """See `Corpus`."""
        return Batch(rows, (self.values[rows],), (), self.labels[rows])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        data = load_clinc150(options.data)
        if options.evaluate is not None:
            _report(options.evaluate, data)
        elif options.teacher is None or options.out is None:
            raise InputError("training needs --teacher and --out; expected both, or --evaluate alone")
        else:
            with Bars() as bars:
                train_clinc150(data, options.teacher, options.out, options.seed, bars)
            _report(options.out, data)
    except EdgeFormerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train or evaluate the zoo's intent classifier.")
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_small.json")
    parser.add_argument("--teacher", help="a sentence embedding checkpoint, such as all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, help="the folder to write, which must not exist")
    parser.add_argument("--evaluate", type=Path, metavar="DIR", help="print the test accuracy of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds sums differently")
    return parser


def _report(folder: Path, data: Clinc150) -> None:
    correct = evaluate(str(folder), data.test)
    print(f"test accuracy: {correct:.4f} on {len(data.test.texts)} in-scope sentences")


def evaluate(source: str, split: Split) -> float:
    """Accuracy of a checkpoint, as `open_checkpoint` takes it, whose labels are CLINC150's intents."""
    checkpoint = open_checkpoint(source, task="text-classification")
    module, _ = load_module(checkpoint, KERNELS["fused"])
    ids = encode(_tokenizer(checkpoint), split.texts, checkpoint.config.max_position_embeddings)
    return accuracy(predict(_first_output(module), ids), split.labels)


def train_clinc150(data: Clinc150, teacher: str, out: Path, seed: int, progress: Progress) -> None:
    """Train and write the checkpoint to `out`, which appears only when it is complete.

    Raises:
        InputError: `out` exists, or the teacher cannot be used.
    """
    if out.exists():
        raise InputError(f"{out} exists: name a new folder, or remove it first")
    rng = random.Random(seed)
    torch.manual_seed(seed)
    teacher_checkpoint = open_checkpoint(teacher, task="text-embedding")
    tokenizer_json, old_ids = shrink_tokenizer(_tokenizer(teacher_checkpoint).to_str(), data.train.texts, VOCAB_SIZE)
    config = public_config(ARCHITECTURE, data.intents)
    with work_folder(out.parent) as work:
        run = Run(open_accelerator(), progress, seed, work, checkpoint_seconds=math.inf)
        lessons = make_lessons(data, teacher_checkpoint, tokenizer_json, rng, run)
        student = make_student(config, len(data.intents), _word_embeddings(teacher_checkpoint)[old_ids])
        teach(student, lessons, run)
        folder = work / out.name
        publish(student, config, tokenizer_json, folder)
        card = CARD.format(
            layers=config["num_hidden_layers"],
            parameters=sum(parameter.numel() for parameter in student.parameters()),
            val_count=len(data.val.texts),
            val_accuracy=evaluate(str(folder), data.val),
            test_count=len(data.test.texts),
            test_accuracy=evaluate(str(folder), data.test),
            seed=seed,
            seq_len=SEQ_LEN,
            positions=config["max_position_embeddings"],
            embedding_size=config["embedding_size"],
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        folder.rename(out)


def make_lessons(data: Clinc150, teacher: Checkpoint, tokenizer_json: str, rng: random.Random, run: Run) -> Lessons:
    """The training sentences and VARIANTS variants of each, with the logits of a classifier over the teacher."""
    embedder, _ = load_module(teacher, KERNELS["fused"])
    tokenizer = _tokenizer(teacher)
    embed = _first_output(embedder)
    sentences = list(data.train.texts)
    labels = torch.tensor(data.train.labels)
    known = predict(embed, encode(tokenizer, sentences, SEQ_LEN), "teacher: sentences", run.at)
    head = _fit_head(known, labels, len(data.intents), run)
    validation = predict(embed, encode(tokenizer, data.val.texts, SEQ_LEN), "teacher: validation", run.at)
    run.say(f"teacher's validation accuracy: {accuracy(head(validation), data.val.labels):.4f}")
    neighbours = word_neighbours(sentences, tokenizer, _word_embeddings(teacher))
    variants = [variant(text, rng.choice(sentences), neighbours, rng) for text in sentences for _ in range(VARIANTS)]
    invented = predict(embed, encode(tokenizer, variants, SEQ_LEN), "teacher: variants", run.at)
    with torch.no_grad():
        logits = head(torch.cat((known, invented)))
    return Lessons(
        ids=encode(Tokenizer.from_str(tokenizer_json), sentences + variants, SEQ_LEN),
        logits=logits,
        labels=torch.cat((labels, torch.full((len(variants),), NO_LABEL))),
    )


def _fit_head(embeddings: Tensor, labels: Tensor, count: int, run: Run) -> nn.Linear:
    """A linear classifier on embeddings (N, C), begun from the mean of each class."""
    head = nn.Linear(embeddings.shape[1], count)
    with torch.no_grad():
        means = torch.stack([embeddings[labels == label].mean(dim=0) for label in range(count)])
        head.weight.copy_(F.normalize(means, dim=1) * HEAD_SCALE)
        head.bias.zero_()
    train(Objective(head, None, Loss()), Embeddings(embeddings, labels), HEAD_TRAINING, run, "teacher's classifier")
    return head


@torch.no_grad()
def predict(
    model: Callable[[Inputs], Tensor],
    data: Encoded,
    title: str = "",
    progress: Progress = silent,
    batch_size: int = 128,
) -> Tensor:
    """The model's output (N, L) for every row, in the order of the rows."""
    order = data.lengths.argsort(stable=True)
    out: list[Tensor] = []
    batches = torch.split(order, batch_size)
    for number, rows in enumerate(batches, 1):
        out.append(model(data.inputs(rows)))
        progress(title, number, len(batches))
    return torch.cat(out)[order.argsort()]


def accuracy(logits: Tensor, labels: Sequence[int]) -> float:
    """Share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == torch.tensor(labels)).float().mean().item()


def make_student(config: Mapping[str, Any], num_labels: int, embeddings: Tensor) -> TextClassifier:
    """An untrained student of a public config, its word embeddings the teacher's (V, C) in fewer dimensions."""
    parsed = mobilebert.parse_config(config)
    module = mobilebert.build(parsed, "text-classification", num_labels, KERNELS["fused"])
    assert isinstance(module, TextClassifier)
    centred = embeddings - embeddings.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    narrow = left[:, : parsed.embedding_size] * sizes[: parsed.embedding_size]  # (V, E)
    with torch.no_grad():
        table = _word_table(module)
        table.copy_(narrow * (EMBEDDING_STD / narrow.std()))
        table[PAD] = 0.0
        for name, parameter in module.named_parameters():
            if "position_embeddings" in name or "token_type_embeddings" in name:
                parameter.normal_(std=EMBEDDING_STD / 10)
    return module


def teach(student: TextClassifier, lessons: Lessons, run: Run) -> None:
    """Let the student imitate the teacher's distribution, and the labels where there are some."""
    train(Objective(student, nn.Identity(), STUDENT_LOSS), lessons, STUDENT_TRAINING, run, "student")
    _continue_positions(student)


def _continue_positions(student: TextClassifier) -> None:
    """Give positions that training never saw the mean of the last ones that it saw."""
    with torch.no_grad():
        positions = student.get_parameter("mobilebert.embeddings.position_embeddings.weight")
        positions[SEQ_LEN - 8 :] = positions[SEQ_LEN - 16 : SEQ_LEN - 8].mean(dim=0)


def _word_table(module: nn.Module) -> nn.Parameter:
    return module.get_parameter("mobilebert.embeddings.word_embeddings.weight")


def _word_embeddings(teacher: Checkpoint) -> Tensor:
    """The teacher's word embeddings (V, C) float32."""
    (table,) = (tensor for name, tensor in teacher.load_weights().items() if name.endswith("word_embeddings.weight"))
    return table


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.tokenizer_json is None:
        raise InputError(f"{checkpoint.source.id} has no tokenizer: expected tokenizer.json or vocab.txt")
    return Tokenizer.from_str(checkpoint.tokenizer_json)


def _first_output(module: nn.Module) -> Callable[[Inputs], Tensor]:
    def call(inputs: Inputs) -> Tensor:
        out: Tensor = module(*inputs)[0]
        return out

    return call


if __name__ == "__main__":
    sys.exit(main())

"""Probes: what a change of a model's weights costs, measured in torch on some examples.

Besides the task's own metric, which moves in steps of one example, a probe measures the mean Kullback-Leibler
divergence from what the model says at fp32. It moves smoothly, so that a few dozen examples rank layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.compress.corpus import NO_LABEL, Batch, Data, SpeechClips, make_corpus
from edgeformer.compress.model import Model
from edgeformer.compress.objective import answer
from edgeformer.compress.recipe import Finetune, Recipe
from edgeformer.evaluate.speech import count_word_errors, simple_words, total
from edgeformer.models.whisper.model import Whisper, causal_mask
from edgeformer.tasks.task import SPEECH
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer

BATCH = 64
ACCURACY = "accuracy"


@dataclass(frozen=True)
class Reading:
    """What a probe found.

    Attributes:
        value: of the probe's metric: share of right answers, or word errors per word.
        agreement: share of answers (of speech: tokens, each given the text before it) that are those of fp32.
        divergence: mean KL(fp32 || this) of the answers' distributions, in nats.
    """

    value: float
    agreement: float
    divergence: float


class Probe:
    """Examples with a classifier's answers at fp32, to compare those of the changed classifier with.

    Attributes:
        metric: what `Reading.value` is.
        reference: the reading at fp32.
    """

    metric = ACCURACY
    batch_size = BATCH

    def __init__(self, model: Model, data: Data, seq_len: int = 128) -> None:
        """Answer every example once.

        Args:
            model: its module is what later changes in place.
            data: examples of its task, some dozens to some hundreds.
            seq_len: of texts: the longest, in tokens.
        """
        self.model = model
        corpus = make_corpus(data, model.checkpoint, None, Recipe("probe", (Finetune(),), seq_len=seq_len))
        rows = torch.split(corpus.lengths.argsort(stable=True), self.batch_size)
        self.batches: tuple[Batch, ...] = tuple(corpus.batch(each, torch.Generator()) for each in rows)
        self._expected = [F.log_softmax(logits, dim=-1) for logits in self.logits(None)]
        self.reference = self.measure()

    def measure(self, layer: str | None = None) -> Reading:
        """Answer every example with the module as it is now.

        Args:
            layer: the only one that differs from fp32, where that is known: it may spare some work.
        """
        right = known = same = answers = 0
        divergence = 0.0
        for batch, logits, expected in zip(self.batches, self.logits(layer), self._expected, strict=True):
            labelled = batch.targets != NO_LABEL
            # Of speech, a position without a target is padding or prompt, and says nothing.
            counted = labelled if batch.targets.dim() > 1 else torch.ones_like(labelled)
            best = logits.argmax(-1)
            right += int((best == batch.targets)[labelled].sum())
            known += int(labelled.sum())
            same += int((best == expected.argmax(-1))[counted].sum())
            answers += int(counted.sum())
            found = F.log_softmax(logits, dim=-1)
            divergence += float((expected.exp() * (expected - found)).sum(-1)[counted].double().sum())
        value = self.value(right / max(1, known), layer)
        # Rounding may put the divergence of equal distributions a little below zero.
        return Reading(value, same / max(1, answers), max(0.0, divergence / max(1, answers)))

    @torch.inference_mode()
    def logits(self, layer: str | None) -> list[Tensor]:  # noqa: ARG002
        """Of each batch: (B, L)."""
        return [answer(self.model.module, batch.student) for batch in self.batches]

    def value(self, right: float, layer: str | None) -> float:  # noqa: ARG002
        """The metric, from the share of answers that are right."""
        return right


# The probe of Whisper: word errors of greedy transcripts, and the divergence of tokens given the text before them.


WORD_ERRORS = "wer"
_ENCODER = "encoder."


def make_probe(model: Model, data: Data, seq_len: int = 128) -> Probe:
    """The probe of a model's task; see `Probe`."""
    return (SpeechProbe if model.checkpoint.task == SPEECH else Probe)(model, data, seq_len)


class SpeechProbe(Probe):
    """Clips with their texts. Layers of the decoder alone leave the encoder's states as they were at fp32."""

    metric = WORD_ERRORS
    batch_size = 4

    def __init__(self, model: Model, data: Data, seq_len: int = 128) -> None:
        """Hear every clip once; see `Probe`."""
        assert isinstance(data, SpeechClips) and isinstance(model.module, Whisper)
        assert model.checkpoint.speech is not None and model.checkpoint.tokenizer_json is not None
        self._whisper, self._data, self._speech = model.module, data, model.checkpoint.speech
        self._tokenizer = SpeechTokenizer(model.checkpoint.tokenizer_json, self._speech.tokens.end)
        self._exact: list[Tensor] = []
        self._heard: list[Tensor] = []
        self._transcripts: list[Tensor] = []
        super().__init__(model, data, seq_len)

    @torch.inference_mode()
    def logits(self, layer: str | None) -> list[Tensor]:
        """Of each batch: (B, N, V), each token given those before it."""
        self._heard = self._encoded(layer)
        pairs = zip(self.batches, self._heard, strict=True)
        return [self._whisper.decoder(batch.student[1], states) for batch, states in pairs]

    @torch.inference_mode()
    def value(self, right: float, layer: str | None) -> float:  # noqa: ARG002
        """Word errors per word, of what `logits` has just encoded."""
        if not self._transcripts:
            pairs = zip(self.batches, self._heard, strict=True)
            self._transcripts = [self._transcribe(batch, states) for batch, states in pairs]
        errors = []
        for batch, states, expected in zip(self.batches, self._heard, self._transcripts, strict=True):
            # Where each token of a transcript is still the likeliest after those before it, the search finds the same.
            tokens = expected if self._still_hears(batch, states, expected) else self._transcribe(batch, states)
            texts = [self._tokenizer.text(row) for row in tokens[:, self._prompt(batch) :].tolist()]
            said = (self._data.texts[row] for row in batch.rows.tolist())
            errors += [count_word_errors(*pair, simple_words) for pair in zip(said, texts, strict=True)]
        return total(errors).rate

    def _encoded(self, layer: str | None) -> list[Tensor]:
        """The encoder's states of each batch, (B, T, C); those at fp32 where only the decoder differs."""
        if self._exact and layer is not None and not layer.startswith(_ENCODER):
            return self._exact
        states = [self._whisper.encoder(batch.student[0]) for batch in self.batches]
        self._exact = self._exact or states
        return states

    def _prompt(self, batch: Batch) -> int:
        """How many tokens come before a transcript."""
        return int((batch.targets[0] != NO_LABEL).nonzero()[0]) + 1

    def _transcribe(self, batch: Batch, states: Tensor) -> Tensor:
        """Greedy search without timestamps: (B, N) tokens, the prompt first.

        A text may become half as long again as the longest that was said; what is behind its end is `end`.
        """
        given, end, prompt = batch.student[1], self._speech.tokens.end, self._prompt(batch)
        most = min(given.shape[1] * 3 // 2 + 8, self._whisper.config.max_target_positions)
        heard, finished = given[:, :prompt], torch.zeros(len(given), dtype=torch.bool)
        while heard.shape[1] < most and not bool(finished.all()):
            logits = self._last_logits(heard, states)
            chosen = self._likeliest(logits, first=heard.shape[1] == prompt).masked_fill(finished, end)
            heard = torch.cat([heard, chosen[:, None]], dim=1)
            finished |= chosen == end
        return heard

    def _still_hears(self, batch: Batch, states: Tensor, tokens: Tensor) -> bool:
        """Whether greedy search gives these tokens (B, N), prompt first, which one pass over all of them tells."""
        prompt = self._prompt(batch)
        logits = self._whisper.decoder(tokens[:, :-1], states)[:, prompt - 1 :]
        first = self._likeliest(logits[:, 0], first=True)
        chosen = torch.cat([first[:, None], self._likeliest(logits[:, 1:], first=False)], dim=1)
        answer = tokens[:, prompt:]
        behind_end = (answer == self._speech.tokens.end).cumsum(1) > 1
        return bool(((chosen == answer) | behind_end).all())

    def _likeliest(self, logits: Tensor, first: bool) -> Tensor:
        """The token that greedy search takes, for logits (..., V), which are changed."""
        logits[..., self._speech.tokens.end + 1 :] = -torch.inf
        logits[..., list(self._speech.suppress)] = -torch.inf
        if first:
            logits[..., list(self._speech.suppress_at_start)] = -torch.inf
        return logits.argmax(-1)

    def _last_logits(self, tokens: Tensor, states: Tensor) -> Tensor:
        """What follows tokens (B, N), given states (B, T, C): (B, V). Only the last position meets the vocabulary."""
        decoder, count = self._whisper.decoder, tokens.shape[1]
        x = decoder.embed(tokens, torch.arange(count))
        for block in decoder.blocks:
            x = block(x, states, causal_mask(count)[None, None])
        return decoder.logits(x[:, -1])

"""Speech as training data, and the probe of Whisper: word errors of greedy transcripts.

Speech is taught token by token, so that a student and its teacher must have one vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.compress.budget.sensitivity import Probe
from edgeformer.compress.corpus import NO_LABEL, Batch, Corpus, Data, Inputs
from edgeformer.compress.model import Model
from edgeformer.compress.recipe import Augment, Recipe
from edgeformer.data.annotated import read_speech_data
from edgeformer.data.labelled import spread
from edgeformer.evaluate.speech import count_word_errors, simple_words, total
from edgeformer.models.whisper.model import Whisper, causal_mask
from edgeformer.tasks.speech import audio_preprocessing
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt, check_language
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.log_mel import LogMel, mel_filter_bank

Samples = NDArray[np.float32]

_ENCODER = "encoder."


@dataclass(frozen=True)
class SpeechClips(Data):
    """Samples (float32, mono, at the model's rate) and their reference texts."""

    samples: tuple[Samples, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def sha256(self) -> str:
        """See `Data`."""
        digest = hashlib.sha256(repr(self.texts).encode())
        for samples in self.samples:
            digest.update(samples.tobytes())
        return digest.hexdigest()

    def limited(self, count: int) -> SpeechClips:
        """See `Data`."""
        return SpeechClips(spread(self.samples, count), spread(self.texts, count))

    def corpus(self, student: Checkpoint, teacher: Checkpoint | None, recipe: Recipe, augment: Augment) -> Corpus:  # noqa: ARG002
        """See `Data`."""
        return SpeechCorpus(self, student, teacher, recipe.max_tokens, recipe.language)


def read_clips(data: str, checkpoint: Checkpoint) -> tuple[SpeechClips, tuple[str, ...]]:
    """Clips that fit into one window; longer ones are left out, because nobody says which words lie where."""
    assert checkpoint.speech is not None
    rate, longest = checkpoint.speech.sample_rate, checkpoint.speech.window_seconds
    found = read_speech_data(data)
    samples, texts = [], []
    for clip in found.clips:
        with open_audio(clip.path, rate) as reader:
            audio = reader.read(longest * rate + 1)
        if len(audio) <= longest * rate:
            samples.append(audio)
            texts.append(clip.text)
    if not samples:
        raise InputError(f"{data} holds no clip of at most {longest} s: expected some that fit into the model's window")
    left_out = len(found.clips) - len(samples)
    notes = (
        (f"{left_out} of {len(found.clips)} clips are longer than {longest} s and are not used",) if left_out else ()
    )
    return SpeechClips(tuple(samples), tuple(texts)), (*found.notes, *notes)


class SpeechCorpus:
    """Clips with their texts, teacher-forced: after each token the next one is the target."""

    fixed = True
    mismatched = 0  # both have one tokenizer, or there is no corpus

    def __init__(
        self, data: SpeechClips, student: Checkpoint, teacher: Checkpoint | None, max_tokens: int, language: str
    ) -> None:
        assert student.speech is not None and student.tokenizer_json is not None
        if teacher is not None and teacher.tokenizer_json != student.tokenizer_json:
            raise InputError(
                f"{teacher.source.id} and {student.source.id} have different tokenizers: speech is taught token by "
                "token, so both must have one vocabulary"
            )
        speech, tokenizer = student.speech, SpeechTokenizer(student.tokenizer_json, student.speech.tokens.end)
        rows = min(max_tokens, student.config.max_target_positions)
        options = TranscribeOptions(language=language if speech.tokens.languages else None, timestamps=False)
        check_language(options, speech.tokens)
        prompt = build_prompt(speech.tokens, rows, options, language).tokens
        self._tokens: list[list[int]] = []
        self._prompt = len(prompt)
        for text in data.texts:
            answer = tokenizer.tokens(text) if text else []
            self._tokens.append([*prompt, *answer, speech.tokens.end][:rows])
        self._end = speech.tokens.end
        self._samples = data.samples
        self._mels = [_mel_of(each) for each in ([student] if teacher is None else [student, teacher])]
        self.lengths = torch.tensor([len(tokens) for tokens in self._tokens])

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """See `Corpus`; inputs are mel (B, n_mels, 2 T) and tokens (B, N), targets (B, N) the tokens that follow."""
        chosen = [torch.tensor(self._tokens[row]) for row in rows.tolist()]
        tokens = torch.nn.utils.rnn.pad_sequence([each[:-1] for each in chosen], True, self._end)
        targets = torch.nn.utils.rnn.pad_sequence([each[1:] for each in chosen], True, NO_LABEL)
        targets[:, : self._prompt - 1] = NO_LABEL  # what the prompt says is given
        inputs: list[Inputs] = []
        for mel in self._mels:
            mels = [torch.from_numpy(mel(self._samples[row])) for row in rows.tolist()]
            inputs.append((torch.cat(mels), tokens))
        return Batch(rows, inputs[0], inputs[1] if len(inputs) > 1 else (), targets)


def _mel_of(checkpoint: Checkpoint) -> Callable[[Samples], Samples]:
    """From samples (N,) to the whole window's spectrogram (1, n_mels, frames), as a model takes it."""
    assert checkpoint.speech is not None
    spec = audio_preprocessing(checkpoint.speech, checkpoint.config.num_mel_bins)
    mel = LogMel(spec, mel_filter_bank(spec.n_mels, spec.n_fft, spec.sample_rate))
    return partial(mel, frames=mel.window_samples // spec.hop_length)


class SpeechProbe(Probe):
    """Clips with their texts. Layers of the decoder alone leave the encoder's states as they were at fp32."""

    batch_size = 4
    predicts_agreement = False

    def __init__(self, model: Model, data: Data, seq_len: int = 128) -> None:
        """Transcribe every clip once; see `Probe`."""
        assert isinstance(data, SpeechClips) and isinstance(model.module, Whisper)
        assert model.checkpoint.speech is not None and model.checkpoint.tokenizer_json is not None
        self._whisper, self._data, self._speech = model.module, data, model.checkpoint.speech
        self._tokenizer = SpeechTokenizer(model.checkpoint.tokenizer_json, self._speech.tokens.end)
        self._exact: list[Tensor] = []
        self._states: list[Tensor] = []
        self._transcripts: list[Tensor] = []
        super().__init__(model, data, seq_len)

    @torch.inference_mode()
    def logits(self, layer: str | None) -> list[Tensor]:
        """Of each batch: (B, N, V), each token given those before it."""
        self._states = self._encoded(layer)
        pairs = zip(self.batches, self._states, strict=True)
        return [self._whisper.decoder(batch.student[1], states) for batch, states in pairs]

    @torch.inference_mode()
    def value(self, right: float, layer: str | None) -> float:  # noqa: ARG002
        """Word errors per word, of what `logits` has just encoded."""
        if not self._transcripts:
            pairs = zip(self.batches, self._states, strict=True)
            self._transcripts = [self._transcribe(batch, states) for batch, states in pairs]
        errors = []
        for batch, states, expected in zip(self.batches, self._states, self._transcripts, strict=True):
            # Where each token of a transcript is still the likeliest after those before it, the search finds the same.
            tokens = expected if self._still_transcribes(batch, states, expected) else self._transcribe(batch, states)
            texts = [self._tokenizer.text(row) for row in tokens[:, self._prompt(batch) :].tolist()]
            references = (self._data.texts[row] for row in batch.rows.tolist())
            errors += [count_word_errors(*pair, simple_words) for pair in zip(references, texts, strict=True)]
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
        longest = min(given.shape[1] * 3 // 2 + 8, self._whisper.config.max_target_positions)
        tokens, finished = given[:, :prompt], torch.zeros(len(given), dtype=torch.bool)
        while tokens.shape[1] < longest and not bool(finished.all()):
            logits = self._last_logits(tokens, states)
            chosen = self._likeliest(logits, first=tokens.shape[1] == prompt).masked_fill(finished, end)
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            finished |= chosen == end
        return tokens

    def _still_transcribes(self, batch: Batch, states: Tensor, tokens: Tensor) -> bool:
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

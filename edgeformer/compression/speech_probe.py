"""The probe of Whisper: word errors of greedy transcripts, and the divergence of tokens given the text before them."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeformer.checkpoint_tasks import SPEECH
from edgeformer.compression.corpus import NO_LABEL, Batch, Data, SpeechClips
from edgeformer.compression.model import Model
from edgeformer.compression.probe import Probe
from edgeformer.models.whisper import Whisper, causal_mask
from edgeformer.word_errors import count_word_errors, simple_words, total
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer

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
        errors = []
        for batch, states in zip(self.batches, self._heard, strict=True):
            texts = self._transcribe(batch, states)
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

    def _transcribe(self, batch: Batch, states: Tensor) -> list[str]:
        """Greedy search without timestamps; a text may become half as long again as the longest that was said."""
        tokens, end = batch.student[1], self._speech.tokens.end
        prompt = int((batch.targets[0] != NO_LABEL).nonzero()[0]) + 1
        most = min(tokens.shape[1] * 3 // 2 + 8, self._whisper.config.max_target_positions)
        heard, finished = tokens[:, :prompt], torch.zeros(len(tokens), dtype=torch.bool)
        while heard.shape[1] < most and not bool(finished.all()):
            logits = self._last_logits(heard, states)
            logits[:, end + 1 :] = -torch.inf
            logits[:, list(self._speech.suppress)] = -torch.inf
            if heard.shape[1] == prompt:
                logits[:, list(self._speech.suppress_at_start)] = -torch.inf
            chosen = logits.argmax(-1).masked_fill(finished, end)
            heard = torch.cat([heard, chosen[:, None]], dim=1)
            finished |= chosen == end
        return [self._tokenizer.text(row) for row in heard[:, prompt:].tolist()]

    def _last_logits(self, tokens: Tensor, states: Tensor) -> Tensor:
        """What follows tokens (B, N), given states (B, T, C): (B, V). Only the last position meets the vocabulary."""
        decoder, count = self._whisper.decoder, tokens.shape[1]
        x = decoder.embed(tokens, torch.arange(count))
        for block in decoder.blocks:
            x = block(x, states, causal_mask(count)[None, None])
        return decoder.logits(x[:, -1])

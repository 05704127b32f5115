"""Speech models made of a few lines: decoders whose logits are a function of the tokens, or of tones in the audio."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from edgeformer_runtime.bundle.specs import AudioBucket, AudioPreprocessing, SpeechTokens, Transcription
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.engines.decoder import DecoderOutput
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, write_mel_filters

RATE = 16000
TOKENS = SpeechTokens(
    start=257,
    end=256,
    start_of_previous=258,
    no_speech=259,
    no_timestamps=262,
    first_timestamp=263,
    transcribe=None,
    translate=None,
    languages={},
)
MULTILINGUAL = SpeechTokens(
    **(vars(TOKENS) | {"transcribe": 260, "translate": 261, "languages": {"de": 254, "en": 255}})
)
VOCABULARY = TOKENS.first_timestamp + 1501
AUDIO = AudioPreprocessing(RATE, 400, 160, 80, "mel.safetensors", 30, 1e-10, 8.0)
SPACE = ord(" ")


def make_spec(rows: int = 64, tokens: SpeechTokens = TOKENS, positions: tuple[int, ...] = (1500,)) -> Transcription:
    buckets = tuple(
        AudioBucket(count, 0, rows, f"encode_{count}", f"prefill_{count}", f"decode_{count}") for count in positions
    )
    return Transcription(
        tokenizer="tokenizer.json",
        tokens=tokens,
        suppress=(1, 2),
        suppress_at_start=(SPACE, tokens.end),
        vocab_size=VOCABULARY,
        layers=1,
        heads=1,
        head_dim=1,
        alignment_heads=1,
        prefill_tokens=4,
        state="host",
        seconds_per_timestamp=0.02,
        max_initial_timestamp=1.0,
        buckets=buckets,
    )


def byte_tokenizer() -> str:
    """A tokenizers file in which the token of each byte is its value."""
    alphabet = sorted(ByteLevel.alphabet())
    own = [character for character in alphabet if ord(character) < 256]
    moved = [byte for byte in range(256) if chr(byte) not in own]
    byte_of = {character: ord(character) for character in own} | dict(zip(alphabet[len(own) :], moved, strict=True))
    tokenizer = Tokenizer(BPE({character: byte_of[character] for character in alphabet}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer.to_str()


Script = Callable[[tuple[int, ...]], np.ndarray]
"""Logits (V,) after the tokens that are seen, prompt included."""


class ScriptedDecoder:
    """A `SpeechDecoder` that simulates a cache: what it sees are the tokens in the rows that the mask shows."""

    def __init__(self, script: Script, rows: int = 64, prefill_tokens: int = 4, positions: int = 10) -> None:
        self.rows = rows
        self.prefill_tokens = prefill_tokens
        self.steps = 0
        self._script = script
        self._positions = positions
        self._cache: dict[int, tuple[int, int]] = {}  # row to (position, token)

    def encode(self, mel: np.ndarray) -> None:
        assert mel.dtype == np.float32
        self._cache.clear()

    def step(self, token: int, position: int, row: int, mask: np.ndarray) -> DecoderOutput:
        self.steps += 1
        assert mask.shape == (self.rows,) and mask.dtype == np.float32 and mask[row] < 0
        seen = sorted(self._cache[index] for index in np.flatnonzero(mask == 0))
        assert [place for place, _ in seen] == list(range(position)), "the rows are not the hypothesis"
        self._cache[row] = (position, token)
        tokens = (*(each for _, each in seen), token)
        return DecoderOutput(self._script(tokens).astype(np.float32), self.alignment(tokens))

    def alignment(self, tokens: tuple[int, ...]) -> np.ndarray:
        return np.full((1, self._positions), len(tokens), np.float32)

    def prefill(self, tokens, position, row, mask, wanted):
        assert 1 <= len(tokens) <= self.prefill_tokens
        mask = mask.copy()
        outputs = []
        for offset, token in enumerate(tokens):
            outputs.append(self.step(token, position + offset, row + offset, mask))
            mask[row + offset] = 0
        for padding in range(len(tokens), self.prefill_tokens):  # these rows hold rubbish now
            self._cache[row + padding] = (-1, -1)
        first, last = (outputs[index] for index in wanted)
        return DecoderOutput(first.logits, first.alignment[:, :0]), last

    def close(self) -> None:
        self._cache.clear()


def says(*transcript: int, likelihood: float = 20.0, prompt: int = 2) -> Script:
    """Logits that make a transcript, and then the end, far likelier than all else, after so many tokens of prompt."""

    def script(tokens: tuple[int, ...]) -> np.ndarray:
        logits = np.zeros(VOCABULARY)
        said = len(tokens) - prompt
        if 0 <= said <= len(transcript):
            logits[(*transcript, TOKENS.end)[said]] = likelihood
        return logits

    return script


TONES = {chr(ord("a") + index): 300 * 1.25**index for index in range(10)}
"""Hz of each letter that `ToneEngine` can transcribe."""


def tones(text: str, letter_seconds: float = 0.4, gap_seconds: float = 0.3) -> np.ndarray:
    """Audio of letters; each space of the text is a gap, and so is the silence behind each letter."""
    time = np.arange(round(letter_seconds * RATE)) / RATE
    gap = np.zeros(round(gap_seconds * RATE))
    parts = [
        gap if letter == " " else np.concatenate((0.5 * np.sin(2 * np.pi * TONES[letter] * time), gap))
        for letter in text
    ]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


class ToneDecoder(ScriptedDecoder):
    """Transcribes tones in the mel: each is a word of one letter, with its times where timestamps are asked for."""

    def __init__(self, rows: int, positions: int) -> None:
        super().__init__(self._logits, rows, positions=positions)
        filters = mel_filter_bank(80, 400, RATE)
        self._letter_of_band = {
            int(filters[:, round(hertz * 400 / RATE)].argmax()): letter for letter, hertz in TONES.items()
        }
        self._heard: list[tuple[int, int, str]] = []

    def encode(self, mel: np.ndarray) -> None:
        super().encode(mel)
        loud = mel[0].max(axis=0) > 0.5  # (2 T,)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False]))))
        self._heard = []
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            band = int(mel[0, :, begin:end].sum(axis=1).argmax())
            nearest = min(self._letter_of_band, key=lambda known: abs(known - band))
            self._heard.append((begin // 2, max(begin // 2 + 1, end // 2), self._letter_of_band[nearest]))

    def _transcript(self, timestamps: bool) -> list[tuple[int, int]]:
        """Tokens, and the position of the audio that each belongs to."""
        said = []
        for begin, end, letter in self._heard:
            text = [(SPACE, begin), (ord(letter), (begin + end) // 2)] if said else [(ord(letter), begin)]
            if timestamps:
                text = [(TOKENS.first_timestamp + begin, begin), *text, (TOKENS.first_timestamp + end, end)]
            said += text
        return [*said, (TOKENS.end, said[-1][1] + 8 if said else 0)]

    def _next(self, tokens: tuple[int, ...]) -> tuple[int, int, int] | None:
        """The token that follows, and the positions from where it starts to where the one behind it does."""
        prompt = tokens.index(TOKENS.start) + 1 if TOKENS.start in tokens else len(tokens)
        timestamps = TOKENS.no_timestamps not in tokens
        said = len(tokens) - prompt - (not timestamps)
        transcript = self._transcript(timestamps)
        if not 0 <= said < len(transcript):
            return None
        token, begin = transcript[said]
        return token, begin, transcript[said + 1][1] if said + 1 < len(transcript) else self._positions

    def _logits(self, tokens: tuple[int, ...]) -> np.ndarray:
        logits = np.zeros(VOCABULARY)
        following = self._next(tokens)
        if following is not None:
            logits[following[0]] = 30
        if not self._heard and tokens[-1] == TOKENS.start:
            logits[TOKENS.no_speech] = 30
        return logits

    def alignment(self, tokens: tuple[int, ...]) -> np.ndarray:
        row = np.zeros((1, self._positions), np.float32)
        following = self._next(tokens)
        if following is not None:
            row[0, following[1] : following[2]] = 1
        return row


class ToneEngine:
    """An `Engine` that only opens decoders; `opened` counts them by positions."""

    name = "tones"
    executed_by = "tones"
    not_covered = None

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.open_now = 0

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> ToneDecoder:
        assert bucket in spec.buckets
        self.opened.append(bucket.positions)
        self.open_now += 1
        decoder = ToneDecoder(bucket.rows, bucket.positions)

        def close() -> None:
            self.open_now -= 1

        decoder.close = close
        return decoder

    def close(self) -> None:
        pass


def tone_transcriber(
    engine: ToneEngine | None = None, options: TranscribeOptions | None = None, **changed
) -> Transcriber:
    """A transcriber that transcribes tones, with buckets of 5, 10, 20 and 30 seconds."""
    spec = make_spec(**({"rows": 448, "positions": (250, 500, 1000, 1500)} | changed))
    files = {
        "tokenizer.json": byte_tokenizer().encode(),
        "mel.safetensors": write_mel_filters(mel_filter_bank(80, 400, RATE)),
    }
    manifest = SimpleNamespace(name="tones", preprocessing=AUDIO, postprocessing=spec, task="speech-recognition")
    bundle = SimpleNamespace(manifest=manifest, read_bytes=files.__getitem__, close=lambda: None)
    return Transcriber(bundle, engine or ToneEngine(), options=options)

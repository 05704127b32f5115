"""The process of one contender of the speech benchmark: transcribes the clip that it is asked for.

Like `edgeformer_runtime.bench.worker`, it imports nothing before the contender does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgeformer_runtime.bench.worker import Questions, finish, serve
from edgeformer_runtime.registry import load_attribute

if TYPE_CHECKING:
    from benchmarks.speech_contenders import Samples, Transcribe

SAMPLE_RATE = 16000


class SpeechWorker:
    """Answers the questions of `whisper_peers.SpeechChild`."""

    def __init__(self) -> None:
        self._transcribe: Transcribe | None = None
        self._clips: list[Samples] = []

    @property
    def questions(self) -> Questions:
        """`load` as `bench.Child` asks it, the clips, one clip's text, and peak memory at the end."""
        return {"load": self.load, "clips": self.clips, "hear": self.hear, "finish": finish}

    def load(self, factory: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
        """Call the factory. What a model does for the first time only, it does when it transcribes its first clips."""
        start = time.perf_counter()
        self._transcribe = load_attribute(factory)(**arguments, threads=threads)
        return {"load_ms": (time.perf_counter() - start) * 1e3}

    def clips(self, parts: list[tuple[str, float, float | None]]) -> dict[str, Any]:
        """Read the clips, as `speech_clips.Audio` names them, so that no time has a file's reading in it."""
        self._clips = [_read(*part) for part in parts]
        return {"seconds": [len(clip) / SAMPLE_RATE for clip in self._clips]}

    def hear(self, clip: int, max_tokens: int | None) -> dict[str, Any]:
        """From samples to text: wall clock and the processor time of all threads, in seconds, and the hypothesis."""
        assert self._transcribe is not None
        wall, cpu = time.perf_counter(), time.process_time()
        heard = self._transcribe(self._clips[clip], max_tokens)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"wall_s": wall, "cpu_s": cpu, "text": heard.text, "tokens": heard.tokens}


def main() -> None:
    """Answer until stdin ends."""
    serve(SpeechWorker().questions)


def _read(file: str, start: float, end: float | None) -> Samples:
    """Samples (N,) of a part of an audio file, as one channel at 16 kHz."""
    from edgeformer_runtime.preprocess.audio import open_audio

    with open_audio(file, SAMPLE_RATE) as reader:
        samples = reader.read(1 << 30)
    return samples[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)].copy()

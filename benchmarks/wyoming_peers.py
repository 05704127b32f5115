"""Home Assistant's protocol, this runtime beside wyoming-faster-whisper: from the end of an utterance to its text.

    python -m benchmarks.wyoming_peers --bundle BUNDLE --peer-model FOLDER --audio FILE...

Both servers run on this machine with one thread, and hear the same recordings in turns. Processor seconds are those of
a server and its processes, from the first chunk of an utterance to its transcript; the seconds by the clock count from
the end of the audio. FOLDER is a Whisper of CTranslate2, of the same weights as the bundle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient

from edgeformer_runtime.preprocess.audio import open_audio

RATE, CHUNK_SAMPLES = 16_000, 1024
START_S = 120.0
OURS = "from edgeformer_runtime.cli.app import main; main()"


@dataclass
class Contender:
    """A running server, and what it took for each utterance."""

    name: str
    port: int
    process: psutil.Process
    wait_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def used_s(self) -> float:
        """Processor seconds so far, those of its processes included."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in processes)


async def transcribe(contender: Contender, samples: NDArray[np.int16]) -> None:
    """Let a server hear one utterance as fast as it takes it."""
    before = contender.used_s()
    async with AsyncTcpClient("127.0.0.1", contender.port) as client:
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(RATE, 2, 1).event())
        for start in range(0, len(samples), CHUNK_SAMPLES):
            data = samples[start : start + CHUNK_SAMPLES].astype("<i2").tobytes()
            await client.write_event(AudioChunk(RATE, 2, 1, data).event())
        await client.write_event(AudioStop().event())
        begin = time.perf_counter()
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                contender.wait_s.append(time.perf_counter() - begin)
                contender.texts.append(Transcript.from_event(event).text.strip())
                contender.cpu_s.append(contender.used_s() - before)
                return
    raise ConnectionError(f"{contender.name} gave no transcript")


@contextmanager
def serving(name: str, command: list[str], port: int) -> Iterator[Contender]:
    """A server, from when it takes connections."""
    process = subprocess.Popen([sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        contender = Contender(name, port, psutil.Process(process.pid))
        asyncio.run(_until_it_listens(port))
        yield contender
    finally:
        process.terminate()
        process.wait()


async def _until_it_listens(port: int) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)
        else:
            writer.close()
            return


def main() -> None:
    """Measure, and print the figures as JSON; ratios are to the peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--peer-model", required=True)
    parser.add_argument("--audio", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    recordings = []
    for path in arguments.audio:
        with open_audio(path, RATE) as reader:
            recordings.append((reader.read(1 << 40) * 32767).astype(np.int16))
    ours = ["-c", OURS, "serve", arguments.bundle, "--port", "0", "--wyoming", "10350"]
    peer = ["-m", "wyoming_faster_whisper", "--model", arguments.peer_model, "--uri", "tcp://127.0.0.1:10351"]
    peer += ["--data-dir", arguments.peer_model, "--language", "en", "--beam-size", "1", "--compute-type", "int8"]
    peer += ["--cpu-threads", "1"]
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(serving("edgeformer", ours, 10350)),
            stack.enter_context(serving("wyoming-faster-whisper", peer, 10351)),
        ]
        for _ in range(arguments.rounds + 1):
            for samples in recordings:
                for contender in contenders:
                    asyncio.run(transcribe(contender, samples))
    count = len(recordings)
    seconds = sum(map(len, recordings)) / RATE
    figures = {
        each.name: {
            "wait_s": round(statistics.median(each.wait_s[count:]), 3),
            "cpu_s_per_audio_s": round(sum(each.cpu_s[count:]) / arguments.rounds / seconds, 4),
            "texts": each.texts[-count:],
        }
        for each in contenders
    }
    mine, other = (sum(each.cpu_s[count:]) for each in contenders)
    waits = (statistics.median(each.wait_s[count:]) for each in contenders)
    first, second = waits
    print(json.dumps(figures | {"cpu_ratio": round(mine / other, 3), "wait_ratio": round(first / second, 3)}))


if __name__ == "__main__":
    main()

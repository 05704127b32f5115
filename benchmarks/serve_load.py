"""Loads `edgeformer-runtime serve` with many clients and checks every single answer.

    python -m benchmarks.serve_load --text BUNDLE [--image BUNDLE] [--speech BUNDLE] [--clients 200] [--seconds 60]

Clients ask one question after the other over loopback and compare the answer with what the bundle says when it is asked
directly: scores must be equal, transcripts too. One question in twenty is wrong on purpose, and its status must be the
one that is due. The scenarios: as many text clients as asked for; the same with room for few to wait, where 503 is due;
the same while the service is killed (-9) and started again, where a question may stay unanswered but no answer may be
wrong or half; the same beside attackers (serve_attackers.py), while the bundle is reloaded three times; a few image and
speech clients, and those of speech beside attackers, too. Printed and written to
benchmarks/results/serve.json: questions per
second, latency of answers, resident memory of the service second by second, with the processes of its bundle. The
clients use the same processors as the service.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import random
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.serve_attackers import Attack, attack_until_over
from benchmarks.tables import RESULTS
from edgeformer_runtime import load
from edgeformer_runtime.pipelines.results import ClassificationResult
from tests.conftest import ASSETS

JSON = "application/json"
WRONG_EVERY = 20
SERVE = (sys.executable, "-c", "from edgeformer_runtime.cli.app import main; main()", "serve")
MAX_BODY_MB = 1
AUDIO_SECONDS = 7200
LOG = Path(tempfile.gettempdir()) / f"serve_load.{os.getpid()}.log"
RELOADS = 3
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Shared, as each client would else spend 20 ms to make one that none needs."""


@dataclass(frozen=True)
class Question:
    """A request and what is due: a status, and for 200 what the answer has to hold."""

    body: bytes
    content_type: str
    status: int = 200
    expected: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """What is asked of a bundle, by how many, for how long.

    Attributes:
        name: for the report.
        bundle: a text, image or speech bundle.
        questions: taken in turn by every client, each from a place of its own.
        clients: that ask at the same time.
        seconds: for how long they begin new questions.
        options: of `serve`.
        may_be_busy: 503 is a due status, too.
        killed: the service is killed and started again halfway.
        attacked: attackers are there all the time, and the bundle is reloaded.
        audio: a long audio for attackers of speech.
    """

    name: str
    bundle: Path
    questions: tuple[Question, ...]
    clients: int
    seconds: float
    options: tuple[str, ...] = ()
    may_be_busy: bool = False
    killed: bool = False
    attacked: bool = False
    audio: bytes | None = None


@dataclass
class Outcome:
    """What came of a scenario; times in seconds, memory in bytes. `load_before` is the machine's over one minute."""

    load_before: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    kills: int = 0
    reloads: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    log_lines: int = 0

    def to_json(self, scenario: Scenario) -> dict[str, Any]:
        """The figures of the report."""
        times = sorted(self.latencies)
        return {
            "scenario": scenario.name,
            "bundle": scenario.bundle.name,
            "load_before": self.load_before,
            "clients": scenario.clients,
            "seconds": scenario.seconds,
            "answers_per_second": round(len(times) / scenario.seconds, 1),
            "cpu_ms_per_request": round(1e3 * self.cpu_s / sum(self.statuses.values()), 2) if not self.kills else None,
            "p50_ms": round(1e3 * statistics.median(times), 1),
            "p99_ms": round(1e3 * times[int(0.99 * (len(times) - 1))], 1),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "wrong": len(self.wrong),
            "unanswered": dict(self.unanswered),
            "resident_mb": [round(value / 1e6, 1) for value in self.resident],
        } | (self._attack_json() if scenario.attacked else {})

    def _attack_json(self) -> dict[str, Any]:
        return {
            "attempts": dict(sorted(self.attempts.items())),
            "attackers_told": dict(sorted(self.told.items())),
            "reloads": self.reloads,
            "log_lines": self.log_lines,
        }


def direct_answers(bundle: Path, raws: Sequence[Any]) -> list[dict[str, Any]]:
    """What the bundle says without a service."""
    with load(bundle) as pipeline:
        results = [pipeline.run(raw) for raw in raws]
    return [
        {"labels": list(result.labels), "scores": list(result.scores)}
        if isinstance(result, ClassificationResult)
        else {"text": result.text, "segments": result.to_json()["segments"]}
        for result in results
    ]


def text_questions(bundle: Path, count: int) -> list[Question]:
    """Sentences of CLINC150, and requests that are wrong in every way that texts can be."""
    rows = json.loads((ASSETS / "text" / "clinc150" / "data_small.json").read_text(encoding="utf-8"))["test"][:count]
    texts = [text for text, _ in rows]
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    good = [
        Question(body, JSON, 200, expected)
        for body, expected in zip(bodies, direct_answers(bundle, texts), strict=True)
    ]
    wrong = [
        Question(b"{", JSON, 400),
        Question(b'{"text": "' + bytes([97]) * (MAX_BODY_MB << 20) + b'"}', JSON, 413),
        Question(b"turn the lights off", "text/plain", 415),
        Question(b'{"text": 1}', JSON, 422),
        Question(b'{"token_ids": [-1]}', JSON, 422),
    ]
    return _mixed(good, wrong)


def image_questions(bundle: Path) -> list[Question]:
    """Small images of CIFAR-10, a photo, and what is no image."""
    with zipfile.ZipFile(ASSETS / "cifar10" / "cifar10_subset.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg")][::40]
        files = [archive.read(name) for name in names]
    files.append((ASSETS / "images" / "open" / "dog.jpg").read_bytes())
    kind = "image/jpeg"
    good = [Question(file, kind, 200, found) for file, found in zip(files, direct_answers(bundle, files), strict=True)]
    return _mixed(good, [Question(b"no image", kind, 422), Question(b"{}", JSON, 415)])


def speech_questions(bundle: Path) -> list[Question]:
    """Clips below 4 seconds, and what is no audio."""
    lines = (ASSETS / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    names = [clip["file"] for clip in map(json.loads, lines) if clip["duration"] < 4]
    files = [(ASSETS / "speech" / name).read_bytes() for name in names]
    kind = "audio/wav"
    good = [Question(file, kind, 200, found) for file, found in zip(files, direct_answers(bundle, files), strict=True)]
    return _mixed(good, [Question(b"no audio", kind, 422), Question(b"{}", JSON, 415)])


def long_audio(seconds: int) -> bytes:
    """An mp3 of somebody who speaks for so long, over and over, at 8 kbit/s: two hours fit the largest body."""
    import numpy as np
    import soundfile

    samples, rate = soundfile.read(ASSETS / "speech" / "jfk.wav", dtype="float32")
    repeated = np.tile(samples, -(-seconds * rate // len(samples)))[: seconds * rate]
    file = io.BytesIO()
    low = {"compression_level": 0.99, "bitrate_mode": "CONSTANT"}
    soundfile.write(file, repeated, rate, format="MP3", subtype="MPEG_LAYER_III", **low)
    return file.getvalue()


def _mixed(good: Sequence[Question], wrong: Sequence[Question]) -> list[Question]:
    """Good questions, with a wrong one after every few."""
    others = itertools.cycle(wrong)
    mixed: list[Question] = []
    for index, question in enumerate(good):
        mixed.append(question)
        if index % WRONG_EVERY == WRONG_EVERY - 1 or index == len(good) - 1:
            mixed.append(next(others))
    return mixed


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def start(scenario: Scenario, port: int) -> subprocess.Popen[bytes]:
    """Start the service; it answers when this returns."""
    command = [*SERVE, str(scenario.bundle), "--port", str(port), "--max-body-mb", str(MAX_BODY_MB), *scenario.options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = LOG.open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    log.close()
    assert process.stdout is not None
    if not process.stdout.readline():
        raise SystemExit(f"the service did not start: {' '.join(command)}")
    return process


async def ask_on(scenario: Scenario, port: int, first: int, end: float, outcome: Outcome) -> None:
    """One client: questions from the `first` on, until the end."""
    questions = itertools.cycle(scenario.questions[first:] + scenario.questions[:first])
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=NO_TLS
    ) as client:
        while time.perf_counter() < end:
            question = next(questions)
            headers = {"Content-Type": question.content_type}
            begun = time.perf_counter()
            try:
                response = await client.post("/v1/answer", content=question.body, headers=headers)
            except httpx.TransportError as error:
                outcome.unanswered[type(error).__name__] += 1
                await asyncio.sleep(0.2)
                continue
            seconds = time.perf_counter() - begun
            outcome.statuses[response.status_code] += 1
            if response.status_code == 503 and scenario.may_be_busy:
                if "retry-after" not in response.headers:
                    outcome.wrong.append("503 without Retry-After")
                await asyncio.sleep(0.05)
                continue
            problem = _problem(question, response)
            if problem:
                outcome.wrong.append(problem)
            elif question.status == 200:
                outcome.latencies.append(seconds)


def _problem(question: Question, response: httpx.Response) -> str | None:
    """What is wrong with a response, None: nothing."""
    if response.status_code != question.status:
        return f"expected {question.status}, found {response.status_code}: {response.text[:200]}"
    answer = response.json()
    if question.status != 200:
        return None if list(answer) == ["error"] else f"a refusal without its reason: {response.text[:200]}"
    found = {name: answer.get(name) for name in question.expected}
    return None if found == question.expected else f"expected {question.expected}, found {found}"


async def run(scenario: Scenario) -> Outcome:
    """Run a scenario."""
    outcome = Outcome(round(os.getloadavg()[0], 1))
    port = free_port()
    process = start(scenario, port)
    try:
        cpu_before_s = _cpu_s(process)
        end = time.perf_counter() + scenario.seconds
        halfway = end - scenario.seconds / 2 if scenario.killed else end
        places = random.Random(0)
        asking = [
            asyncio.create_task(ask_on(scenario, port, places.randrange(len(scenario.questions)), end, outcome))
            for _ in range(scenario.clients)
        ]
        attack = Attack(port, asyncio.get_running_loop().time() + scenario.seconds, scenario.audio)
        attacking = asyncio.create_task(attack_until_over(attack)) if scenario.attacked else None
        while time.perf_counter() < end:
            if (
                scenario.attacked
                and outcome.reloads < RELOADS * (1 - (end - time.perf_counter()) / scenario.seconds) - 0.5
            ):
                process.send_signal(signal.SIGHUP)
                outcome.reloads += 1
            if time.perf_counter() > halfway and not outcome.kills:
                process.kill()
                process.wait()
                outcome.kills += 1
                process = await asyncio.to_thread(start, scenario, port)
            outcome.resident.append(_resident_bytes(process))
            await asyncio.sleep(1)
        await asyncio.gather(*asking)
        if attacking is not None:
            await attacking
            outcome.attempts, outcome.told = attack.attempts, attack.statuses
            await asyncio.sleep(3)  # for what attackers left to be given up
        outcome.resident.append(_resident_bytes(process))
        outcome.cpu_s = _cpu_s(process) - cpu_before_s
        held = await _settled_metrics(port, outcome.reloads)
        process.terminate()
        if process.wait(60) != 0:
            outcome.wrong.append(f"the service ended with {process.returncode}")
    finally:
        process.kill()
    log = LOG.read_text(encoding="utf-8", errors="replace")
    LOG.unlink()
    outcome.log_lines = len(log.splitlines())
    if "Traceback" in log:
        outcome.wrong.append(f"the log has a traceback: {log[-2000:]}")
    if _done_reloads(outcome.reloads) not in held:
        outcome.wrong.append(f"expected {outcome.reloads} reloads")
    for name in ("edgeformer_held_bytes", "edgeformer_unanswered_requests"):
        if f"\n{name} 0.0\n" not in held:
            outcome.wrong.append(f"{name} is not 0 after the last answer")
    return outcome


def _done_reloads(count: int) -> str:
    return f'edgeformer_reloads_total{{outcome="done"}} {count}.0' if count else ""


async def _settled_metrics(port: int, reloads: int) -> str:
    """The service's metrics once it has done its reloads, for which it has half a minute."""
    text = ""
    for _ in range(60):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
        if _done_reloads(reloads) in text:
            break
        await asyncio.sleep(0.5)
    return text


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The service and the processes of its bundle."""
    service = psutil.Process(process.pid)
    return [service, *service.children()]


def _resident_bytes(process: subprocess.Popen[bytes]) -> int:
    total = 0
    for member in _family(process):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    total = 0.0
    for member in _family(process):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def scenarios(arguments: argparse.Namespace) -> Iterator[Scenario]:
    """What the command line asks for."""
    workers = ("--workers", str(arguments.workers))
    if arguments.text:
        questions = tuple(text_questions(arguments.text, 500))
        text = arguments.text, questions, arguments.clients
        yield Scenario("text", *text, arguments.seconds, workers)
        few = (*workers, "--max-waiting", str(max(1, arguments.clients // 8)))
        yield Scenario("text, room for few", *text, arguments.seconds / 4, few, may_be_busy=True)
        wide = (*workers, "--max-body-mb", "16")
        small = tuple(question for question in questions if question.status != 413)  # of which `wide` takes more
        beside = arguments.text, small, arguments.clients
        yield Scenario("text, beside attackers", *beside, arguments.seconds, wide, attacked=True)
        yield Scenario("text, killed and restarted", *text, arguments.seconds / 3, workers, killed=True)
    if arguments.image:
        yield Scenario(
            "image", arguments.image, tuple(image_questions(arguments.image)), 16, arguments.seconds / 3, workers
        )
    if arguments.speech:
        questions = tuple(speech_questions(arguments.speech))
        yield Scenario("speech", arguments.speech, questions, 8, arguments.seconds / 2, workers)
        attacked = Scenario("speech, beside attackers", arguments.speech, questions, 8, arguments.seconds, workers)
        yield replace(
            attacked, attacked=True, audio=long_audio(AUDIO_SECONDS), options=(*workers, "--max-body-mb", "16")
        )


def main() -> int:
    """Run the scenarios; 1: an answer was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--text", "--image", "--speech"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    report = []
    failed = False
    for scenario in scenarios(arguments):
        outcome = asyncio.run(run(scenario))
        if outcome.unanswered and not scenario.killed:
            outcome.wrong.append(f"unanswered: {dict(outcome.unanswered)}")
        report.append(outcome.to_json(scenario))
        print(json.dumps(report[-1]), *outcome.wrong[:3], sep="\n", flush=True)
        failed = failed or bool(outcome.wrong)
    (RESULTS / "serve.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

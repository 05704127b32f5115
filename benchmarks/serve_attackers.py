"""Clients that mean a service no good, beside which the good ones have to be answered as if they were alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

HOST = b"Host: 127.0.0.1\r\n"
JSON_HEAD = b"POST /v1/answer HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
SILENT = 320
SLOW = 40
PAUSE_S = 0.2
MEGABYTE = b"a" * (1 << 20)


@dataclass
class Attack:
    """One service under attack, until a time of the event loop's clock.

    Attributes:
        port: of the service on loopback.
        end: when it is over.
        audio: a long audio for services of speech, None: there is none.
        attempts: by attacker, how often each tried.
        statuses: by attacker and status, what it was told; 0: nothing.
    """

    port: int
    end: float
    audio: bytes | None = None
    attempts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def is_over(self) -> bool:
        """Whether the attackers stop."""
        return asyncio.get_running_loop().time() >= self.end

    async def try_once(self, name: str, *parts: bytes, pause_s: float = 0.0, transcribes: bool = True) -> None:
        """Connect, send parts with pauses between them, and hear what the service says, or leave."""
        self.attempts[name] += 1
        status = 0
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            transcribing = asyncio.ensure_future(reader.read(64))
            try:
                with suppress(ConnectionError):
                    for part in parts:
                        if transcribing.done():  # it has been refused, and goes on for a while only
                            break
                        writer.write(part)
                        await asyncio.wait_for(writer.drain(), 30)
                        await asyncio.sleep(pause_s)
                if transcribes:
                    answer = await asyncio.wait_for(transcribing, 60)
                    status = int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0
            finally:
                transcribing.cancel()
                writer.transport.abort()
        if transcribes:
            self.statuses[f"{name} {status}"] += 1


def _posted(body: bytes, content_type: bytes = b"application/json") -> bytes:
    head = b"POST /v1/answer HTTP/1.1\r\n" + HOST + b"Content-Type: " + content_type + b"\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _slow_head(attack: Attack) -> None:
    await attack.try_once("slow head", JSON_HEAD, *[b"x"] * 60, pause_s=1.0)


async def _slow_body(attack: Attack) -> None:
    await attack.try_once("slow body", JSON_HEAD + b"Content-Length: 1000\r\n\r\n", *[b"{"] * 60, pause_s=1.0)


async def _silent(attack: Attack) -> None:
    await attack.try_once("silent")


async def _giant_head(attack: Attack) -> None:
    await attack.try_once("giant head", b"GET / HTTP/1.1\r\n" + HOST + b"X: ", *[MEGABYTE] * 300)


async def _giant_text(attack: Attack) -> None:
    text = "".join(random.choices("abcdefgh ", k=1000)) * (15 << 10)
    await attack.try_once("giant text", _posted(json.dumps({"text": text}).encode()))


async def _long_audio(attack: Attack) -> None:
    await attack.try_once("long audio", _posted(attack.audio or b"", b"audio/mpeg"))


async def _gone(attack: Attack) -> None:
    request = _posted(b'{"text": "turn the lights off"}')
    await attack.try_once("gone", request[: random.randrange(1, len(request) + 1)], transcribes=False)


async def _gone_audio(attack: Attack) -> None:
    await attack.try_once("gone audio", _posted(attack.audio or b"", b"audio/mpeg"), pause_s=1.0, transcribes=False)


async def _many_values(attack: Attack) -> None:
    await attack.try_once("many values", _posted(b"[" + b"[]," * (5 << 20) + b"1]"))


async def _no_json(attack: Attack) -> None:
    await attack.try_once("no JSON", _posted(random.randbytes(random.randrange(1, 1000))))


async def _rebound(attack: Attack) -> None:
    await attack.try_once("rebound", _posted(b'{"text": "on"}').replace(b"127.0.0.1", b"evil.example"))


async def _noise(attack: Attack) -> None:
    await attack.try_once("noise", random.randbytes(random.randrange(1, 5000)))


ATTACKERS: tuple[tuple[Callable[[Attack], Awaitable[None]], int], ...] = (
    (_silent, SILENT),
    (_slow_head, SLOW),
    (_slow_body, SLOW),
    (_giant_head, 1),
    (_giant_text, 1),
    (_gone, 4),
    (_many_values, 1),
    (_no_json, 2),
    (_rebound, 1),
    (_noise, 2),
)
"""Each attacker, and how many of it there are at a time."""

AUDIO_ATTACKERS: tuple[tuple[Callable[[Attack], Awaitable[None]], int], ...] = ((_long_audio, 2), (_gone_audio, 1))


async def attack_until_over(attack: Attack) -> None:
    """Let all attackers try again and again."""

    async def keep_trying(attacker: Callable[[Attack], Awaitable[None]]) -> None:
        while not attack.is_over():
            await attacker(attack)
            await asyncio.sleep(PAUSE_S)

    kinds = (*ATTACKERS, *(AUDIO_ATTACKERS if attack.audio else ()))
    trying = [asyncio.ensure_future(keep_trying(attacker)) for attacker, count in kinds for _ in range(count)]
    await asyncio.sleep(max(0.0, attack.end - asyncio.get_running_loop().time()))
    for task in trying:
        task.cancel()
    await asyncio.gather(*trying, return_exceptions=True)

"""Which names a request may give its host, and where it may come from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve.options import SameSite, check_host_name


def status(headers: list[tuple[str, str]], here: str = "192.168.1.5", allowed: tuple[str, ...] = ()) -> int:
    """The status of a request with these headers that came in at an address."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "server": (here, 80),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(SameSite(app, allowed)(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("host", "here", "expected"),
    [
        ("192.168.1.5", "192.168.1.5", 200),
        ("192.168.1.5:8642", "192.168.1.5", 200),
        ("192.168.1.6", "192.168.1.5", 421),
        ("192.168.1.5", "::ffff:192.168.1.5", 200),
        ("[fe80::1]:80", "fe80::1%eth0", 200),
        ("[FE80:0:0::1]", "fe80::1", 200),
        ("[fe80::2]", "fe80::1", 421),
        ("localhost", "192.168.1.5", 200),
        ("pi.local", "192.168.1.5", 200),
        ("PI.LOCAL.:80", "192.168.1.5", 200),
        ("other.local", "192.168.1.5", 421),
        ("pi.local@evil.example", "192.168.1.5", 421),
        ("pi.local:80:80", "192.168.1.5", 421),
        ("", "192.168.1.5", 421),
        ("[", "192.168.1.5", 421),
        ("\xff", "192.168.1.5", 421),
    ],
)
def test_hosts(host: str, here: str, expected: int) -> None:
    assert status([("Host", host)], here, ("pi.local",)) == expected


def test_two_hosts_or_none_are_refused() -> None:
    assert status([("Host", "localhost"), ("Host", "localhost")]) == 421
    assert status([]) == 421


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("http://localhost:80", 200), ("HTTP://LOCALHOST:80", 200), ("http://localhost", 403), ("null", 403), ("", 403)],
)
def test_origins(origin: str, expected: int) -> None:
    assert status([("Host", "localhost:80"), ("Origin", origin)]) == expected


@pytest.mark.parametrize("name", ["*", "", "pi.local:80", "http://pi.local", "a b", "-a", "a..b", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="expected a host's name or address without port"):
        check_host_name(name)


@pytest.mark.parametrize("name", ["pi.local", "Pi", "192.168.1.5", "fe80::1", "a_b.c-d.example."])
def test_names(name: str) -> None:
    check_host_name(name)

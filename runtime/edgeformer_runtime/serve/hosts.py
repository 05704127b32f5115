"""Who may ask: a request has to name this service as its host, and may not come from another site's page.

A page of a stranger can make a browser on this machine, or in this network, send requests here. It gives itself away by
its own name: in `Origin`, or, where its name was made to lead here (DNS rebinding), in `Host`. No such page has an IP
address for a name but the one that it was loaded from.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_HOST = re.compile(r"(\[(?P<literal>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))(:[0-9]{1,5})?", re.ASCII)


def check_host_name(name: str) -> None:
    """Let a name be allowed as the service's host.

    Raises:
        InputError: it is no host's name or address, or it has more than that.
    """
    if not (_is_address(name) or _NAME.fullmatch(name.lower().removesuffix("."))):
        raise InputError(
            f"allow host: expected a host's name or address without port, as pi.local, found {shorten(name)}"
        )


class SameSite:
    """An application that is asked only by requests which name it as their host, and by no page of another site."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        """Guard an application.

        Args:
            app: what answers.
            allowed: names of this service beside loopback's, and beside the address that a connection came in at.
        """
        self._app = app
        self._allowed = LOOPBACK_NAMES | {_normal(name) for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it: 421 another host's name, 403 another site."""
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)) is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
                return
            status, message = refusal
            await JSONResponse({"error": message}, status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        found = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        name = _host_name(found)
        here = _normal(scope["server"][0]) if scope.get("server") else ""
        if name is None or (name not in self._allowed and name != here):
            names = ", ".join(sorted(self._allowed))
            what = shorten(found, 60) if len(hosts) == 1 else f"{len(hosts)} of them"
            return 421, f"expected Host to be one of {names} or the address here, found {what}: see --allow-host"
        origins = [value.decode("latin-1").lower() for key, value in scope["headers"] if key == b"origin"]
        if any(origin.partition("://")[2] != found for origin in origins):
            return 403, "expected a request of this service's own page, found one of another site"
        return None


def _host_name(host: str) -> str | None:
    """The name in a Host header, None: it has none."""
    found = _HOST.fullmatch(host)
    return None if found is None else _normal(found["literal"] or found["name"])


def _normal(name: str) -> str:
    """One spelling for a name or an address."""
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name.lower().removesuffix(".")
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

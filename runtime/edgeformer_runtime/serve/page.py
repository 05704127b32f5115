"""The page to try a bundle by hand: one file, which loads nothing from elsewhere and is not allowed to."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import HTMLResponse


def page_response() -> HTMLResponse:
    """The page, with a policy (CSP level 3) under which a browser runs its own script only."""
    html, policy = _page()
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})


@cache
def _page() -> tuple[str, str]:
    html = files("edgeformer_runtime.serve").joinpath("page.html").read_text(encoding="utf-8")
    (script,), (style,) = (
        re.findall(r"<script>(.*?)</script>", html, re.S),
        re.findall(r"<style>(.*?)</style>", html, re.S),
    )
    policy = (
        # blob: is the recorder's audio worklet, and the preview of a photo.
        f"default-src 'none'; script-src {_hash(script)} blob:; style-src {_hash(style)}; img-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

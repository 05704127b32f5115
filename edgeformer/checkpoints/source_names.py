"""How a source is named: a folder, a name in the zoo, or a hub id. Nothing here imports torch."""

from __future__ import annotations

import re
from os import fspath
from pathlib import Path

from edgeformer.zoo import ZOO
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.path_field import StrPath

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def check_source(source: StrPath) -> None:
    """Refuse what is neither there, nor of the zoo, nor a hub id, before what reads it imports torch.

    Raises:
        InputError: it is none of them; or a slip in a name of the zoo, which nobody wants to look for in the hub.
    """
    source = fspath(source)
    if Path(source).expanduser().exists() or source in ZOO:
        return
    is_slip = "/" not in source and did_you_mean(source, ZOO)
    if is_slip or not HUB_ID.fullmatch(source):
        raise InputError(f"no checkpoint {source!r}: there is no such folder, and {expected_source(source)}")


def expected_source(source: str) -> str:
    """The end of a message about what is no source."""
    return f"{did_you_mean(source, ZOO)}expected a folder, a hub id (org/name) or one of the zoo: {', '.join(ZOO)}"

"""Where this user's cache lies."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`edgeformer` in the folder that the environment names for caches; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgeformer"

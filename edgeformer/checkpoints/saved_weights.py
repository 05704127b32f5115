"""Weights as a safetensors file that others can read as far as the user's umask lets them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write weights; safetensors itself gives its files to their owner alone."""
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    save_file(dict(tensors), file, metadata={"format": "pt"})
    file.chmod(mode)

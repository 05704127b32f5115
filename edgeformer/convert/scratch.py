"""Where export tools write what they need for a moment: beside the output, where there has to be room anyway."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeformer.models.program import Program
from edgeformer_runtime.errors import EdgeFormerError, InputError

_FULL_BYTES = 1 << 20
_SLACK_BYTES = 16 << 20
_TMPDIR = "TMPDIR"


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Have temporary files of this process go to a folder, those of tools in other languages, too.

    A full TMPDIR ends LiteRT's converter, and with it the process, without a word; and what tools leave there when they
    are killed stays for ever.

    Raises:
        InputError: something failed inside the block, and the folder's disk is full.
    """
    scratch = folder / "scratch"
    scratch.mkdir()
    before = tempfile.tempdir, os.environ.get(_TMPDIR)
    tempfile.tempdir = os.environ[_TMPDIR] = str(scratch.resolve())
    try:
        yield
    except EdgeFormerError:
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            raise InputError(f"no space left in {folder.parent.parent}: make room, or name another --out") from error
        raise
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ[_TMPDIR]
        else:
            os.environ[_TMPDIR] = before[1]


def check_space(folder: Path, programs: Sequence[Program], copies: int) -> None:
    """Refuse a conversion for which a disk has no room, as tools that find it full end the process.

    Args:
        folder: where everything is written.
        programs: what is converted.
        copies: how often the weights are written at least.

    Raises:
        InputError: too little is free.
    """
    parameters = {id(each): each for program in programs for each in program.module.parameters()}
    weights = sum(each.numel() * each.element_size() for each in parameters.values())
    needed, free = copies * weights + _SLACK_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"not enough space in {folder.parent.parent}: {needed >> 20} MiB are needed, {free >> 20} MiB are free: "
            "make room, or name another --out"
        )

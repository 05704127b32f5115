"""Commands in processes of their own, forked from one that has imported what they need: each start takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["accelerate", "transformers", "edgeformer.cli", "edgeformer.compress.steps"])


def start(arguments: Sequence[str], stderr: str | Path = os.devnull, max_file_bytes: int | None = None) -> BaseProcess:
    """Start `edgeformer ARGUMENTS`, with as many threads as torch has here.

    Args:
        arguments: without the program.
        stderr: the file that gets what it prints there.
        max_file_bytes: it cannot write more into a file.
    """
    process = _SERVER.Process(target=_run, args=([*arguments], str(stderr), max_file_bytes, torch.get_num_threads()))
    process.start()
    return process


def _run(arguments: list[str], stderr: str, max_file_bytes: int | None, threads: int) -> None:
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if max_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    torch.set_num_threads(threads)
    from edgeformer.cli import app
    from edgeformer_runtime.cli.console import run_app

    run_app(app, arguments)

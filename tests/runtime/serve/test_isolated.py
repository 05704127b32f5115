"""A stranger's bundle is served from a process of its own, which can die or be ended without the service."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from process import Served, serving
from raw_client import ask, get, metric, wait_for

pytestmark = pytest.mark.slow


def helper_of(served: Served) -> psutil.Process:
    (helper,) = psutil.Process(served.process.pid).children()
    return helper


def test_a_dead_process_costs_one_answer_at_most(tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served, serving(tiny_onnx, "--no-isolated") as plain:
        expected = ask(plain.port, "hello").json()["scores"]
        assert psutil.Process(plain.process.pid).children() == []
        assert ask(served.port, "hello").json()["scores"] == expected
        for count in (1, 2):
            helper_of(served).kill()
            found = [ask(served.port, "hello") for _ in range(3)]
            assert [answer.json().get("scores") for answer in found[1:]] == [expected] * 2
            assert metric(served.port, "edgeformer_restarted_processes") == count
        assert get(served.port, "/health/ready").status == 200
        assert served.end() == 0
        assert served.log() == ""


def test_what_hangs_is_ended_when_its_client_goes(tiny_onnx: Path) -> None:
    """A process that is stopped stands for code that hangs: nothing in it can give up."""
    with serving(tiny_onnx, "--answer-timeout", 1) as served, ThreadPoolExecutor() as pool:
        hanging = helper_of(served)
        os.kill(hanging.pid, signal.SIGSTOP)
        late = pool.submit(ask, served.port, "hello").result()
        assert late.status == 504
        wait_for(lambda: ask(served.port, "hello").status == 200)
        wait_for(lambda: not hanging.is_running())
        # On a busy machine it may count as stuck before it has been ended.
        reasons = ("interrupted", "stuck")
        counted = [metric(served.port, f'edgeformer_replaced_workers_total{{reason="{each}"}}') for each in reasons]
        assert sum(counted) == 1


def test_no_process_is_left(tiny_onnx: Path) -> None:
    with serving(tiny_onnx, "--workers", 2) as served:
        helpers = psutil.Process(served.process.pid).children()
        assert len(helpers) == 2
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: metric(served.port, 'edgeformer_reloads_total{outcome="done"}') == 1)
        wait_for(lambda: not any(helper.is_running() for helper in helpers))
        newer = psutil.Process(served.process.pid).children()
        assert len(newer) == 2
        assert served.end() == 0
        assert not any(helper.is_running() for helper in newer)


def test_the_second_signal_leaves_no_process(tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served, ThreadPoolExecutor() as pool:
        helper = helper_of(served)
        os.kill(helper.pid, signal.SIGSTOP)
        hanging = pool.submit(ask, served.port, "hello")
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") == 1)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert served.end() == 128 + signal.SIGTERM
        assert hanging.result().status == 0
        wait_for(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)

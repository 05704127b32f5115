"""`--jobs`: each target in a process of its own, with the same bundles and the same errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer.convert import parallel
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import EngineError, InputError
from tests.checkpoint_factory import save_mobilebert


@pytest.mark.slow
def test_two_targets_side_by_side(tmp_path: Path) -> None:
    source = save_mobilebert(tmp_path / "tiny", num_hidden_layers=1)
    told: list[tuple[str, int, int]] = []
    options = ConvertOptions(source, tmp_path / "dist", ("onnx", "coreml"), ("fp32",), seq_lens=(8,), jobs=2)
    result = convert(options, lambda *step: told.append(step))
    assert result.ok
    assert [each.path.name for each in result] == ["tiny.onnx.fp32", "tiny.coreml.fp32"]
    assert sorted(path.name for path in (tmp_path / "dist").iterdir()) == ["tiny.coreml.fp32", "tiny.onnx.fp32"]
    for each in result:
        with Bundle.open(each.path) as bundle:
            assert bundle.manifest.target == each.target
    assert len(set(result.notes)) == len(result.notes)
    lowering = [(step, total) for step, _, total in told if "lowering" in step]
    assert sorted(step for step, _ in lowering) == ["coreml: lowering to fp32", "onnx: lowering to fp32"]
    assert max(total for _, _, total in told) == 6  # reading, lowering and verifying, twice


@pytest.mark.slow
def test_what_a_process_refuses_is_this_ones_error(tmp_path: Path) -> None:
    options = ConvertOptions(tmp_path / "nothing", tmp_path / "dist", ("onnx", "litert"), jobs=2)
    with pytest.raises(InputError, match="nothing"):
        convert(options)
    assert not (tmp_path / "dist").exists()


def test_a_process_that_dies_is_an_error_and_ends_the_others(tmp_path: Path) -> None:
    options = ConvertOptions(tmp_path / "nothing", tmp_path / "dist", ("onnx",))
    child = parallel._start(options)
    assert child.process.pid is not None
    os.kill(child.process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"onnx: the process that converted ended with exit code -9: try again with"):
        while child.outcome is None:
            parallel._receive(child, lambda *_: None, [child])


@pytest.mark.skipif(os.name != "posix", reason="a process is killed")
def test_no_process_outlives_the_one_that_asked() -> None:
    """A SIGKILL of that one included, which no handler sees."""
    script = (
        "import multiprocessing, os, signal, sys, threading, time\n"
        "from edgeformer.convert import parallel\n"
        "def work():\n"
        "    signal.signal(signal.SIGTERM, parallel._end)\n"
        "    threading.Thread(target=parallel._outlive_nobody, daemon=True).start()\n"
        "    os.write(1, b'working\\n')\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('fork').Process(target=work).start()\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"working\n"
        asking.kill()
        assert asking.stdout.read() == b""  # which ends when the last process that could write there has ended


@pytest.mark.parametrize("jobs", [0, -1, 65])
def test_jobs_are_a_few(jobs: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--jobs: expected 1 to 64, found {jobs}"):
        ConvertOptions(tmp_path, tmp_path, jobs=jobs)

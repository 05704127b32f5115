"""What is LiteRT's own: the shared weight cache, and a quiet stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer_runtime import load
from edgeformer_runtime.process import held_back

pytestmark = pytest.mark.litert


def test_opening_and_running_prints_nothing_and_writes_no_file(tiny_litert: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys; from edgeformer_runtime import load\n"
        f"pipeline = load({str(tiny_litert)!r}); print(pipeline('hello').label); pipeline.close()\n"
        "os.write(2, b'MARK')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    # What comes after the mark is from LiteRT's static destructors, when Python has gone.
    assert done.stderr.partition("MARK")[0] == ""
    assert done.stdout in ("lights\n", "greeting\n", "weather\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has anonymous memory files")
def test_signatures_share_one_copy_of_packed_weights(tmp_path: Path) -> None:
    """Four signatures of a model with 16 MiB of weights take less than two copies of them."""
    import litert_torch
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Linear(512, 512) for _ in range(16)]).eval()  # 16 MiB
    converter = litert_torch
    for length in (1, 2, 3, 4):
        converter = converter.signature(f"s{length}", module, (torch.ones(length, 512),))
    converter.convert().export(str(tmp_path / "model.tflite"))
    grown = {cache: _growth(tmp_path / "model.tflite", cache) for cache in ("", ":memory")}
    assert grown[":memory"] < 2 * 16
    assert grown[""] > 3 * 16


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has anonymous memory files")
@pytest.mark.parametrize("confined", [False, True])
def test_packed_weights_lie_in_a_memory_file(
    confined: bool, tiny_litert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ours, whose packing memory is given back; where no file may be opened for writing, of XNNPACK's own."""
    from edgeformer_runtime.engines import litert

    def refuse(path: str, flags: int) -> int:
        assert (path[:14], flags) == ("/proc/self/fd/", os.O_RDWR)
        raise PermissionError(path)

    if confined:
        monkeypatch.setattr(litert.os, "open", refuse)
    with load(tiny_litert) as pipeline:
        found = Path("/proc/self/maps").read_text(encoding="utf-8")
        assert pipeline("hello").label in ("lights", "greeting", "weather")
    assert ("memfd:packed weights" in found) is not confined
    assert ("memfd:XNNPack" in found) is confined


def _growth(model: Path, cache: str) -> float:
    """MiB of resident memory, without the mapped model file, that opening a model and running it adds."""
    script = f"""
import json, numpy as np
from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options
def used():
    status = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return sum(int(status[key].split()[0]) for key in ("RssAnon", "RssShmem")) / 1024
before = used()
options = Options(cpu_options=CpuOptions(num_threads=1, xnnpack_weight_cache_path={cache!r}))
model = CompiledModel.from_file({str(model)!r}, options=options)
for index, (key, signature) in enumerate(model.get_signature_list().items()):
    inputs, outputs = model.create_input_buffers(index), model.create_output_buffers(index)
    inputs[0].write(np.ones((int(key[1:]), 512), np.float32))
    model.run_by_index(index, inputs, outputs)
print(json.dumps(used() - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def test_held_back_output_appears_if_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with held_back():
        os.write(2, b"quiet")
    with pytest.raises(ValueError, match="x"), held_back():
        os.write(2, b"loud")
        raise ValueError("x")
    assert capfd.readouterr().err == "loud"

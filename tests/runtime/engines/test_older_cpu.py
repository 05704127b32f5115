"""int8 in ONNX Runtime on an emulated CPU without VNNI, whatever CPU this is."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("onnx")
EMULATOR = "qemu-x86_64-static"

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulated CPU runs this machine's own libraries"),
    pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"needs {EMULATOR}: make older-cpu installs it"),
]

# 255 * 127 is summed in pairs into 16 bits where there is no VNNI: 64,770 becomes 32,767.
SCRIPT = """
import json, numpy, onnx, onnxruntime
from onnx import TensorProto, helper
from edgeformer_runtime.engines.onnx import PRECISE_INT8, saturates

weights = helper.make_tensor("w", TensorProto.INT8, (64, 16), numpy.full((64, 16), 127, numpy.int8).tobytes(), raw=True)
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["a", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("a", TensorProto.UINT8, (4, 64))],
    [helper.make_tensor_value_info("y", TensorProto.INT32, (4, 16))], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()

def largest(*entries):
    options = onnxruntime.SessionOptions()
    for entry in entries:
        options.add_session_config_entry(*entry)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return int(session.run(None, {"a": numpy.full((4, 64), 255, numpy.uint8)})[0].max())

print(json.dumps([largest(), largest(PRECISE_INT8), saturates()]))
"""


def test_the_engines_option_keeps_int8_products_exact_where_they_would_saturate() -> None:
    done = subprocess.run(
        [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    plain, precise, found = json.loads(done.stdout)
    exact = 64 * 255 * 127
    assert plain == 64 // 2 * 32_767  # the emulated CPU does saturate
    assert precise == exact
    assert found  # so the engine asks for it

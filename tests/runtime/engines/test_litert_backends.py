"""A LiteRT bundle runs on whichever interpreter is installed, but for one that would answer wrongly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bundle import manifest, seal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import parse
from edgeformer_runtime.engines import litert_backends, open_engine
from edgeformer_runtime.engines.litert_backends import BACKENDS, CHOICE, InterpreterEngine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.verify.verify import verify

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"
UNSUPPORTED = "Didn't find op for builtin opcode 'GATHER_ND' version '5'. An older version may be supported."


def bundle_of(precision_weights: str = "float32") -> Any:
    """What an engine reads of a bundle before it opens the model."""
    made = manifest("litert", model="model.tflite")
    return SimpleNamespace(
        manifest=replace(made, recipe=replace(made.recipe, weights=precision_weights)),
        path=lambda file: Path("nowhere") / file,
    )


def pretended(
    inputs: tuple[str, ...] = ("attention_mask", "input_ids"),
    lengths: tuple[int, ...] = (8, 16),
    dtype: type = np.int32,
    error: str | None = None,
) -> Any:
    """A class like an interpreter's, whose models have the signatures of the tiny bundle, or cannot be opened."""

    class Pretended:
        def __init__(self, model_path: str, *, num_threads: int) -> None:
            assert (Path(model_path).name, num_threads) == ("model.tflite", 1)
            if error is not None:
                raise ValueError(error)

        def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
            return {f"seq_{length}": {"inputs": list(inputs), "outputs": ["output"]} for length in lengths}

        def get_signature_runner(self, signature_key: str) -> Any:
            shape = np.array([1, int(signature_key.removeprefix("seq_"))])

            def run(**given: np.ndarray) -> dict[str, np.ndarray]:
                return {"output": given["input_ids"][:, :3].astype(np.float32)}

            run.get_input_details = lambda: {name: {"dtype": dtype, "shape": shape} for name in inputs}  # type: ignore
            return run

    return Pretended


def ids(length: int = 8) -> dict[str, np.ndarray]:
    return {name: np.arange(length, dtype=np.int32)[None] for name in ("input_ids", "attention_mask")}


def test_an_interpreter_runs_programs_by_name_and_says_what_it_is() -> None:
    engine = InterpreterEngine(bundle_of(), 1, pretended(), "tflite-runtime 2.14.0")
    assert engine.executed_by == "tflite-runtime 2.14.0"
    np.testing.assert_array_equal(engine.run("seq_8", ids())["output"], [[0, 1, 2]])
    np.testing.assert_array_equal(engine.run("seq_16", ids(16))["output"], [[0, 1, 2]])
    with pytest.raises(InputError, match="unknown program"):
        engine.run("seq_4", ids(4))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run("seq_8", ids())


@pytest.mark.parametrize(
    ("corrupted", "message"),
    [
        (
            {"error": UNSUPPORTED},
            "2.14.0 is too old for model.tflite: it lacks GATHER_ND version 5: run it with ai-edge-litert",
        ),
        ({"error": "Model provided is not a valid Flatbuffer"}, "cannot open model.tflite: Model provided is not a"),
        ({"inputs": ("ids",)}, "'seq_8' has the tensors ids, the manifest declares attention_mask, input_ids"),
        ({"lengths": (4,)}, "no signature 'seq_8'"),
        ({"dtype": np.int64}, "is int64 (1, 8), the manifest declares int32 (1, 8)"),
    ],
)
def test_a_model_that_cannot_run_says_why(corrupted: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=re.escape(message)):
        InterpreterEngine(bundle_of(), 1, pretended(**corrupted), "tflite-runtime 2.14.0").run("seq_8", ids())


def installed(monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    """Only these are installed, each with the pretended interpreter."""

    def find(package: str) -> str:
        try:
            return packages[package.replace("-", "_")]
        except KeyError:
            raise metadata.PackageNotFoundError(package) from None

    def load(entry: str) -> Any:
        if entry.endswith(":__version__"):
            raise ImportError(entry)
        return pretended()

    monkeypatch.setattr(metadata, "version", find)
    monkeypatch.setattr(litert_backends, "load_attribute", load)
    monkeypatch.delenv(CHOICE, raising=False)


def test_what_is_installed_runs_and_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tflite_runtime="2.14.0", tensorflow_cpu="2.21.0")
    assert litert_backends.open_litert(bundle_of(), 1).executed_by == "tflite-runtime 2.14.0"
    monkeypatch.setenv(CHOICE, "tensorflow")
    assert litert_backends.open_litert(bundle_of(), 1).executed_by == "tensorflow-cpu 2.21.0"
    monkeypatch.setenv(CHOICE, "interpreter")
    with pytest.raises(EngineError, match="expected the package ai-edge-litert: install it"):
        litert_backends.open_litert(bundle_of(), 1)
    monkeypatch.setenv(CHOICE, "coral")
    with pytest.raises(InputError, match=r"EDGEFORMER_LITERT: expected one of compiled-model, .* found 'coral'"):
        litert_backends.open_litert(bundle_of(), 1)


def test_nothing_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(EngineError, match="pip install edgeformer-runtime"):
        litert_backends.open_litert(bundle_of(), 1)


def test_int8_is_refused_where_its_scales_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tflite_runtime="2.14.0")
    with pytest.raises(EngineError, match=r"does not know the scales of int8 weights .* fp32 or fp16"):
        litert_backends.open_litert(bundle_of("int8"), 1)
    assert BACKENDS["tensorflow"].computes_int8("2.21.0")
    assert not BACKENDS["tensorflow"].computes_int8("2.9.1")
    assert BACKENDS["interpreter"].computes_int8("2.3.0")


@pytest.mark.litert
def test_the_plain_interpreter_agrees_with_the_reference(tiny_litert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "interpreter")
    with Bundle.open(tiny_litert) as bundle:
        outcome = verify(bundle)
        assert outcome.ok, outcome
        assert outcome.executed_by.endswith("(Interpreter)")
        engine = open_engine(bundle)
        assert isinstance(engine, InterpreterEngine)
        engine.close()


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with tflite-runtime, the last release of it, and what else the runtime needs; without ai-edge-litert."""
    if sys.version_info[:2] > (3, 11):
        pytest.skip("tflite-runtime has wheels for Python 3.11 and older")
    folder = tmp_path_factory.mktemp("tflite")
    venv.create(folder)
    python = folder / "bin" / "python"
    # This environment's pip, and nothing compiled that is never imported: both take seconds.
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    packages = ["numpy<2", "tokenizers", "Pillow", "safetensors", "typer", "rich", "psutil"]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", "tflite-runtime==2.14.0", *packages], check=True)
    return python


def call(python: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the checkout's runtime in another environment."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    command = [str(python), "-c", "from edgeformer_runtime.cli.app import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, env=variables | {"PYTHONPATH": str(RUNTIME)} | environment, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.litert
def test_tflite_runtime_agrees_with_the_reference_and_refuses_int8(
    old_python: Path, tiny_litert: Path, tmp_path: Path
) -> None:
    done = call(old_python, "verify", tiny_litert, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["executed_by"] == "tflite-runtime 2.14.0"

    claimed = Path(shutil.copytree(tiny_litert, tmp_path / "int8"))
    found = parse((claimed / "manifest.json").read_bytes())
    seal(claimed, replace(found, precision="dynamic-int8", recipe=replace(found.recipe, weights="int8")))
    refused = call(old_python, "verify", claimed)
    assert refused.returncode == 2
    assert "does not know the scales of int8 weights" in refused.stderr
    chosen = call(old_python, "verify", tiny_litert, **{CHOICE: "compiled-model"})
    assert chosen.returncode == 2
    assert "expected the package ai-edge-litert" in chosen.stderr

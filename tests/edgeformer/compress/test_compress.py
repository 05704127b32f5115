"""Recipes from end to end: results, determinism, interruption."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.compress import training
from edgeformer.compress.model import open_model, write_model
from edgeformer_runtime.delivery import alone
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_whisper
from tests.edgeformer.compress import commands, tiny

pytestmark = pytest.mark.slow
CHAIN = """
seq_len = 16
[[step]]
kind = "finetune"
training = { epochs = 12, batch_size = 4, learning_rate = 3e-3 }
[[step]]
kind = "distill"
loss = { logits = 1.0, labels = 0.5 }
augment = { variants = 1 }
training = { epochs = 12, batch_size = 8, learning_rate = 5e-3, schedule = "cosine" }
[step.student]
model_type = "mobilebert"
vocab_size = 90
hidden_size = 32
embedding_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intra_bottleneck_size = 16
intermediate_size = 32
num_feedforward_networks = 2
max_position_embeddings = 64
normalization_type = "layer_norm"
[[step]]
kind = "prune"
heads = 0.25
neurons = 0.5
[[step]]
kind = "sparsify"
sparsity = 0.5
training = { epochs = 3, batch_size = 4, learning_rate = 1e-3 }
[[step]]
kind = "distill"
training = { epochs = 2, batch_size = 4, learning_rate = 1e-3 }
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints have the same weights, bit for bit."""
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def new_head(recipe: str) -> str:
    return recipe.replace('kind = "finetune"', 'kind = "finetune"\nnew_head = true', 1)


def test_a_chain_of_steps(place: Path) -> None:
    """A bare encoder becomes a classifier, teaches a MobileBERT, which is pruned, thinned and taught again."""
    texts = place / "texts.json"
    made = tiny.run(place / "bare", new_head(CHAIN), texts, place / "chain" / "out", evaluate=str(texts))
    report = json.loads((made.path / "edgeformer.json").read_text())
    assert report == made.report
    steps = [step["results"] for step in report["steps"]]
    assert steps[0]["accuracy"] == 1.0 and steps[1]["accuracy"] >= 0.75
    assert steps[1]["examples"] == 24 and steps[0]["examples"] == 12
    assert steps[2]["removed"]["heads"] == 1 and steps[2]["removed"]["neurons"] > 0
    assert steps[3]["linear_zeros"] == steps[4]["linear_zeros"] == pytest.approx(steps[3]["linear_weights"] / 2, abs=20)
    assert report["steps"][0]["training"]["learning_rate"] == 3e-3
    checkpoint = open_checkpoint(str(made.path))
    assert checkpoint.family.name == "mobilebert" and checkpoint.labels == ("call", "lights", "weather")
    assert checkpoint.config.vocab_size == 90 and len(checkpoint.config.layer_widths) == 2
    load_module(checkpoint, KERNELS["dense"])
    assert sorted(path.name for path in (place / "chain").iterdir()) == ["out", "recipe.toml"]
    again = tiny.run(place / "bare", new_head(CHAIN), texts, place / "chain" / "again", evaluate=str(texts))
    assert same(made.path, again.path)
    assert again.report == made.report
    other = tiny.run(place / "bare", new_head(tiny.FINETUNE), texts, place / "chain" / "seed", seed=1)
    first = tiny.run(place / "bare", new_head(tiny.FINETUNE), texts, place / "chain" / "seed0")
    assert not same(other.path, first.path)


@pytest.mark.parametrize("kind", ["distilbert", "whisper", "tinyvit"])
def test_written_models_are_in_the_public_format(tmp_path: Path, kind: str) -> None:
    save = {"distilbert": tiny.save_distilbert, "whisper": save_whisper, "tinyvit": tiny.save_tinyvit}[kind]
    source = save(tmp_path / "source")  # type: ignore[operator]
    write_model(open_model(str(source)), tmp_path / "out")
    before, after = weights(source), weights(tmp_path / "out")
    assert after.keys() == before.keys() - {"proj_out.weight"}
    assert all(torch.equal(before[name], after[name]) for name in after)
    if kind == "distilbert":
        transformers.DistilBertForSequenceClassification.from_pretrained(tmp_path / "out")
    if kind == "whisper":
        transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")


def test_images_learn_from_a_teacher_of_another_size(tmp_path: Path) -> None:
    images = tiny.save_images(tmp_path / "images")
    source = tiny.save_tinyvit(tmp_path / "teacher")
    recipe = """
        [[step]]
        kind = "finetune"
        training = { epochs = 20, batch_size = 6, learning_rate = 5e-3 }
        [[step]]
        kind = "distill"
        student.model_args.embed_dims = [8, 16, 16]
        student.model_args.depths = [1, 1, 1]
        student.model_args.num_heads = [1, 2, 2]
        student.model_args.window_sizes = [4, 4, 4]
        loss = { logits = 1.0, labels = 1.0 }
        augment = { shift = 0.1, jitter = 0.1 }
        training = { epochs = 20, batch_size = 6, learning_rate = 5e-3 }
        """
    made = tiny.run(source, recipe, images, tmp_path / "out", evaluate=str(images))
    accuracies = [step["results"]["accuracy"] for step in made.report["steps"]]
    assert accuracies[0] >= 0.9 and accuracies[1] >= 0.6
    assert open_checkpoint(str(made.path)).config.depths == (1, 1, 1)


def test_a_whisper_learns_from_a_deeper_one(tmp_path: Path) -> None:
    clips = tiny.save_clips(tmp_path / "clips")
    source = save_whisper(tmp_path / "whisper", max_source_positions=100)
    recipe = """
        max_tokens = 24
        [[step]]
        kind = "distill"
        student = { decoder_layers = 1 }
        loss = { logits = 1.0, labels = 0.5, hidden = 0.1, attention = 0.1 }
        training = { epochs = 8, batch_size = 2, learning_rate = 2e-3 }
        [[step]]
        kind = "prune"
        heads = 0.5
        neurons = 0.5
        """
    made = tiny.run(source, recipe, clips, tmp_path / "out", evaluate=str(clips))
    first = made.report["steps"][0]["results"]
    assert first["tensors_from_teacher"] == first["tensors"]
    assert first["loss"] < 20  # 30 to begin with
    checkpoint = open_checkpoint(str(made.path))
    assert checkpoint.config.decoder_layers == 1
    assert sum(layer.heads for layer in checkpoint.config.encoder_layer_widths) == 2
    assert checkpoint.config.decoder_layer_widths[0].heads == 2


# Interruption


def command(place: Path, out: Path, *more: str) -> list[str]:
    recipe = tiny.save_recipe(out.parent / "recipe.toml", tiny.LONG)
    arguments = ["compress", place / "student", "--recipe", recipe, "--data", place / "texts.json", "--out", out]
    return [*map(str, arguments), "--teacher", str(place / "teacher"), *more]


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> Path:
    return tiny.run(
        place / "student", tiny.LONG, place / "texts.json", place / "whole" / "out", teacher=str(place / "teacher")
    ).path


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_ends_at_the_same_weights(
    place: Path, uninterrupted: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = commands.start(command(place, out, "--checkpoint-seconds", "0"), tmp_path / "stderr")
    states = tmp_path / ".out.compress" / "training-1-distill"
    deadline = time.monotonic() + 300
    while not any(int(path.name) >= 20 for path in states.glob("[0-9]*") if path.name.isdecimal()):
        assert process.is_alive() and time.monotonic() < deadline, (tmp_path / "stderr").read_text()
        time.sleep(0.02)
    os.kill(process.pid or 0, how)
    process.join(60)
    if how == signal.SIGINT:
        assert process.exitcode == 130
        assert (tmp_path / "stderr").read_text().strip().splitlines()[-1] == "error: interrupted"
    assert not out.exists()
    options: dict[str, Any] = {"teacher": str(place / "teacher")}
    with pytest.raises(InputError, match=r"an interrupted run is at .*: go on with --resume"):
        tiny.run(place / "student", tiny.LONG, place / "texts.json", out, **options)
    with pytest.raises(InputError, match="had another seed"):
        tiny.run(place / "student", tiny.LONG, place / "texts.json", out, seed=5, resume=True, **options)
    made = tiny.run(place / "student", tiny.LONG, place / "texts.json", out, resume=True, **options)
    assert same(made.path, uninterrupted)


def test_a_run_goes_on_from_its_last_finished_step(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.FINETUNE + '[[step]]\nkind = "distill"\ntraining = { epochs = 2, batch_size = 4 }\n'
    whole = tiny.run(place / "student", recipe, place / "texts.json", tmp_path / "whole").path

    def stop(*_arguments: Any, **_more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("edgeformer.compress.steps.run_distill", stop)
        patched.setattr("edgeformer.compress.steps.RUNNERS", {})
        patched.setattr("edgeformer.compress.compress.RUNNERS", {"finetune": _finetune(), "distill": stop})
        with pytest.raises(KeyboardInterrupt):
            tiny.run(place / "student", recipe, place / "texts.json", tmp_path / "out")
    updates: list[str] = []
    train = training.train
    monkeypatch.setattr(
        "edgeformer.compress.steps.train", lambda *args, **more: updates.append(args[4]) or train(*args, **more)
    )
    made = tiny.run(place / "student", recipe, place / "texts.json", tmp_path / "out", resume=True)
    assert updates == ["2-distill"]
    assert same(made.path, whole)


def _finetune() -> Any:
    from edgeformer.compress.steps import run_finetune

    return run_finetune


def test_two_processes_come_to_what_one_comes_to(place: Path, tmp_path: Path) -> None:
    recipe = """
        seq_len = 16
        [[step]]
        kind = "distill"
        loss = { logits = 1.0, labels = 0.5, hidden = 0.5, attention = 0.5 }
        augment = { variants = 1 }
        training = { epochs = 4, batch_size = 7, learning_rate = 1e-3 }
        """
    texts, teacher = place / "texts.json", str(place / "teacher")
    alone = tiny.run(place / "student", recipe, texts, tmp_path / "alone", teacher=teacher)
    # accelerate's own launcher starts several processes on a CPU through MPI alone; torch's does so with gloo.
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "edgeformer", "compress"]
    arguments = [place / "student", "--recipe", tmp_path / "recipe.toml", "--data", texts, "--teacher", teacher]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *arguments, "--out", tmp_path / "two"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "two" / "edgeformer.json").read_text())
    assert (report["processes"], alone.report["processes"]) == (2, 1)
    one, two, before = weights(alone.path), weights(tmp_path / "two"), weights(place / "student")
    moved = max(float((one[name] - before[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    # Sums are rounded in another order, and Adam divides small gradients by their own size.
    assert moved > 5e-3 and apart < 0.02 * moved
    assert report["steps"][0]["results"]["loss"] == pytest.approx(alone.report["steps"][0]["results"]["loss"], rel=1e-4)


def test_mixed_precision(place: Path, tmp_path: Path) -> None:
    made = tiny.run(
        place / "student", 'mixed_precision = "bf16"\n' + tiny.FINETUNE, place / "texts.json", tmp_path / "bf16"
    )
    plain = tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", tmp_path / "plain")
    losses = [each.report["steps"][0]["results"]["loss"] for each in (made, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="fp16"):
            tiny.run(
                place / "student", 'mixed_precision = "fp16"\n' + tiny.FINETUNE, place / "texts.json", tmp_path / "fp16"
            )


def test_a_full_disk(place: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the middle of a state."""
    arguments = command(place, tmp_path / "out", "--checkpoint-seconds", "0")
    process = commands.start(arguments, tmp_path / "stderr", max_file_bytes=100_000)
    process.join(300)
    assert process.exitcode == 2
    said = (tmp_path / "stderr").read_text()
    assert said.strip().splitlines()[-1].startswith("error: cannot write to")
    assert "--resume" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_killed_once_its_result_had_its_place(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = (place / "student", tiny.FINETUNE, place / "texts.json", tmp_path / "kill" / "out")
    with monkeypatch.context() as patched:
        patched.setattr("edgeformer.compress.compress._clear", lambda _: None)
        made = tiny.run(*work)
    left = work[3].parent / ".out.compress"
    assert (left / "plan.json").exists()
    assert tiny.run(*work, resume=True).report == made.report
    assert not left.exists() and (made.path / "model.safetensors").exists()
    modes = {(made.path / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1, "weights are no more private than what stands beside them"
    left.mkdir()
    (left / "plan.json").write_text('{"inputs": {}, "results": []}')
    with pytest.raises(InputError, match="out exists"):
        tiny.run(*work, resume=True)
    assert left.exists(), "the work of another run"


@pytest.mark.slow
def test_a_command_that_is_killed_while_it_publishes_loses_nothing(place: Path, tmp_path: Path) -> None:
    """Killed when the result is being written, when it has its place, and at whatever moment the next steps are."""
    folder, out = tmp_path / "killed", tmp_path / "killed" / "out"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tiny.FINETUNE)
    made = tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", tmp_path / "whole")
    arguments = [str(place / "student"), "--data", str(place / "texts.json"), "--out", str(out)]
    started = ["compress", *arguments, "--recipe", str(recipe)]
    generator = random.Random(0)
    for marker in (folder / ".out.compress" / "result", out, folder / ".out.compress" / "result", out):
        resume = ["--resume"] if (folder / ".out.compress" / "plan.json").exists() else []
        process = commands.start([*started, *resume])
        while process.is_alive() and not marker.exists():
            time.sleep(0.0003)
        time.sleep(generator.uniform(0, 0.006))
        process.kill()
        process.join(60)
        if out.exists():
            assert same(out, made.path) and (out / "edgeformer.json").exists()
            with pytest.raises(InputError, match="out exists: name a new folder"):
                tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", out)
            assert sorted(path.name for path in folder.iterdir()) == ["out", "recipe.toml"]
            shutil.rmtree(out)
        else:
            assert (folder / ".out.compress" / "plan.json").exists(), "what was done before is kept"


def test_what_a_run_left_that_was_killed_while_it_cleared_up_goes(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", out)
    dead = tmp_path / ".edgeformer-dead" / "new" / ".out.compress"
    dead.mkdir(parents=True)
    (dead.parent.parent / "lock").touch()
    (dead / "plan.json").touch()
    (tmp_path / ".edgeformer-out.lock").touch()
    with pytest.raises(InputError, match="out exists and no interrupted run is beside it: name a new folder"):
        tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", out, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.toml"]
    assert (made.path / "model.safetensors").exists()


def test_two_runs_of_one_output(place: Path, tmp_path: Path) -> None:
    with alone(tmp_path / "out"), pytest.raises(InputError, match="is writing it: wait until that has ended"):
        tiny.run(place / "student", tiny.FINETUNE, place / "texts.json", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]

"""Options are refused by name before torch is imported, and every name can be listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeformer.attention import ALL_KERNELS
from edgeformer.cli import app
from edgeformer.compress.recipe import shipped_recipes
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import PRECISIONS, TARGETS
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.errors import InputError
from tests.edgeformer.command_server import CommandServer

Light = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def light() -> Iterator[Light]:
    """The exit code, stdout and stderr of a command that must not import torch."""
    # No hub is asked: what it would answer depends on the network.
    server = CommandServer(environment={"HF_HUB_OFFLINE": "1"})

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        ended = server(*arguments)
        assert not ended.torch, ended.stderr
        return ended.returncode, ended.stdout, ended.stderr.strip()

    yield run
    server.close()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("convert x --out o --precision int8", "did you mean dynamic-int8 or static-int8?"),
        ("convert x --out o --precision fp16,fp-32", "did you mean fp32?"),
        ("convert x --out o --target litert,tflite", "did you mean litert?"),
        ("convert x --out o --target LiteRT", "did you mean litert?"),
        (
            "convert x --out o --target coreml --precision static-int8",
            "coreml has no static-int8: activations are quantized on macOS only",
        ),
        ("convert x --out o --attention Dense", "did you mean dense?"),
        ("convert x --out o --task classification", "did you mean text-classification or image-classification?"),
        ("convert x --out o --window ful", "did you mean full?"),
        ("convert x --out o --calibration-method minmax", "did you mean min-max?"),
        ("convert x --out o --seq-len long", "expected --seq-len as numbers"),
        ("compress x --data DATA --out o --recipe prune-haf", "did you mean prune-half?"),
        ("compress x --data DATA --out o --budget size<=1X", "budget"),
        ("compress x --data nowhere.csv --out o --recipe prune-half", "no data at nowhere.csv"),
        ("sensitivity x --data DATA --target ort", "did you mean onnx?"),
        ("sensitivity x --data DATA --formats int7", "did you mean int8?"),
        ("bench x --against pytorch", "did you mean torch?"),
        ("eval nowhere --data DATA", "no bundle at nowhere"),
        ("eval nowhere --data nothing", "no data at nothing"),
        ("report nowhere", "no folder at nowhere"),
        ("doctor nowhere", "no bundle at nowhere"),
        ("list recipe", "did you mean recipes?"),
        ("list precisions", "did you mean targets?"),
        ("convert x --out o --target coreml --min-ios 15", "unknown release iOS 15: expected one of 16, 17, 18"),
        ("convert clinc150-mobilebrt --out o", "did you mean clinc150-mobilebert?"),
        ("convert nowhere/at/all --out o", "there is no such folder"),
        ("convert x --out o --labels nowhere.txt", "--labels: no file at nowhere.txt"),
        ("convert x --out o --calibration nowhere", "--calibration: no file at nowhere"),
        ("convert x --out o --precision mixed --plan nowhere.json", "--plan: no file at nowhere.json"),
        ("convert x --out o --eval nowhere.csv", "no data at nowhere.csv"),
        ("compress clinc150-mobilebrt --data DATA --out o --recipe prune-half", "did you mean clinc150-mobilebert?"),
        ("compress x --data DATA --out o --budget acuracy_drop<=1%", "did you mean accuracy_drop?"),
        ("sensitivity cifar10-tinyvits --data DATA", "did you mean cifar10-tinyvit?"),
        ("verify nowhere --layers", "no bundle at nowhere"),
        ("demo --speech nowhere.wav", "no audio file at nowhere.wav"),
        ("report . --html .", ". is a folder: expected a file's name"),
        ("bench x --html .", ". is a folder: expected a file's name"),
        ("convert nobody/nothing --out o", "no checkpoint 'nobody/nothing': expected a folder, a hub id"),
        ("compress nobody/nothing --data DATA --out o --recipe prune-half", "no checkpoint 'nobody/nothing'"),
        ("sensitivity nobody/nothing --data DATA", "no checkpoint 'nobody/nothing'"),
        ("verify tests --layers --source nobody/nothing", "no checkpoint 'nobody/nothing'"),
        ("bench x --against torch --source nobody/nothing", "no checkpoint 'nobody/nothing'"),
        ("eval tests --data DATA --source nobody/nothing", "no checkpoint 'nobody/nothing'"),
        ("demo --speech --weights nobody/nothing", "no checkpoint 'nobody/nothing'"),
        ("convert tests --out o --revision main", "a revision belongs to a hub id, and 'tests' is local:tests"),
        ("convert tests --out o", "'tests' is no checkpoint: there is no config.json in it"),
        ("convert x --out DATA", "test_cli_options.py is a file: expected a folder, or a name for a new one"),
        ("convert x --out DATA/o", "test_cli_options.py is a file: expected a folder, or a name for a new one"),
        ("demo --out DATA", "test_cli_options.py is a file: expected a folder, or a name for a new one"),
        ("compress x --data DATA --out tests --recipe prune-half", "tests exists: name a new folder"),
        ("compress x --data DATA --out DATA --budget size<=8MB", "test_cli_options.py exists: name a new folder"),
        ("compress x --data DATA --out o", "expected --recipe, a TOML file or a recipe that ships, or --budget"),
        ("convert x --out o --precision static-int8", "static-int8 needs calibration: give --calibration"),
        ("convert x --out o --precision mixed --plan DATA", "test_cli_options.py is not JSON"),
        ("convert x --out o --eval DATA:key", "test_cli_options.py holds one table: leave 'key' out"),
        ("eval tests --data DATA:key", "test_cli_options.py holds one table: leave 'key' out"),
        ("report tests --data DATA:key", "test_cli_options.py holds one table: leave 'key' out"),
    ],
)
def test_wrong_options_cost_no_import_of_torch(light: Light, arguments: str, problem: str) -> None:
    code, out, err = light(*(word.replace("DATA", __file__) for word in arguments.split()))
    assert (code, out) == (2, "")
    assert problem in err and err.count("\n") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "convert x --out PLACE",
        "compress x --data DATA --recipe prune-half --out PLACE",
        "demo --out PLACE",
        "report . --html PLACE",
        "bench x --html PLACE",
        "bench x --plot PLACE",
        "pack x --out PLACE",
        "run x audio.wav --out PLACE",
        "sign --new-key PLACE",
        "sign PLACE --key x",
    ],
)
def test_an_output_whose_name_is_no_text_is_refused_at_the_start(light: Light, arguments: str, tmp_path: Path) -> None:
    place = str(tmp_path / "a\udcff.png")
    words = {"PLACE": place, "DATA": __file__}
    code, out, err = light(*(words.get(word, word) for word in arguments.split()))
    assert (code, out) == (2, "")
    assert err.endswith("a\\udcff.png: expected a path in UTF-8 for what is written: name another place")
    assert err.count("\n") == 0 and not list(tmp_path.iterdir())


def test_the_list_names_everything(light: Light) -> None:
    code, out, _ = light("list", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["families", "tasks", "targets", "zoo", "recipes"]
    assert {"mobilebert", "bert", "whisper"} <= set(found["families"])
    assert found["targets"] == {name: list(target.precisions) for name, target in TARGETS.items()}
    assert set(found["recipes"]) == set(shipped_recipes())
    code, out, _ = light("list", "targets")
    assert code == 0
    assert "litert" in out and "palette6" in out and "mobilebert" not in out


def test_what_is_named_is_there() -> None:
    trainings = [task.training for task in TASKS.values() if task.training is not None]
    assert {recipe for training in trainings for recipe in training.recipes} <= set(shipped_recipes())
    assert all(callable(ALL_KERNELS[name]) for name in ALL_KERNELS)


def test_version_help_and_completion(light: Light) -> None:
    assert light("--version") == (0, "edgeformer 0.1.0\n", "")
    for arguments in (["-h"], ["convert", "-h"]):
        code, out, _ = light(*arguments)
        assert code == 0 and "Usage:" in out
    code, out, _ = light("-h")
    assert "--install-completion" in out and "--show-completion" in out
    code, out, _ = light("convert", "-h")
    for precision in PRECISIONS:
        assert precision in out.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("convert cli", ["clinc150-mobilebert"]),
        ("convert x --target o", ["onnx"]),
        ("convert x --target litert,o", ["litert,onnx"]),
        ("convert x --precision dyn", ["dynamic-int8"]),
        ("convert x --task speech", ["speech-recognition"]),
        ("convert x --attention s", ["split_heads", "sliding_window"]),
        ("compress x --recipe prune", ["prune-60", "prune-half", "prune-quarter"]),
        ("list t", ["tasks", "targets"]),
        ("bench x --against o", ["onnxruntime", "openvino"]),
        ("con", ["convert"]),
    ],
)
def test_the_shell_completes_names(words: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    last = len(words.split())
    monkeypatch.setenv("_EDGEFORMER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"edgeformer {words}")
    monkeypatch.setenv("COMP_CWORD", str(last))
    done = CliRunner().invoke(app, [], prog_name="edgeformer")
    assert done.exit_code == 0 and done.stdout.split() == found


def test_all_precisions_that_targets_lack_are_named_at_once() -> None:
    with pytest.raises(
        InputError,
        match=r"coreml has no static-int8: activations are quantized on macOS only.*; executorch has no precision 'pal",
    ):
        ConvertOptions("x", Path("o"), ("coreml", "executorch"), ("static-int8", "palette6"))

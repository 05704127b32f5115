"""The public functions: found in whatever order things are imported, documented by examples that run, and silent."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import edgeformer as ef
import edgeformer_runtime
from edgeformer import api
from edgeformer_runtime.verify.verify import Stage
from tests.checkpoint_factory import save_mobilebert

PACKAGES = {
    "convert": "options",
    "verify": "layers",
    "evaluate": "embeddings",
    "compress": "recipe",
    "doctor": "diagnosis",
}
"""Functions that share their name with a package, and a module of each."""

FUNCTIONS = (*PACKAGES, "benchmark")


def python(script: str) -> str:
    """What a script prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = json.loads(
        python(
            "import sys; before = set(sys.modules); import edgeformer; dir(edgeformer);"
            "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    assert [name for name in loaded if name.split(".")[0] in ("torch", "numpy", "rich", "typer")] == []
    assert [name for name in loaded if name.startswith("edgeformer")] == ["edgeformer"]


def test_the_functions_cost_no_import_of_torch_before_they_are_called() -> None:
    names = ", ".join(f"ef.{name}" for name in FUNCTIONS)
    script = f"import sys, inspect, edgeformer as ef; [inspect.signature(each) for each in ({names})]"
    assert python(f"{script}; print('torch' in sys.modules)") == "False\n"


CHECK = """
import inspect, pydoc, sys
import edgeformer as ef, edgeformer.api
function = getattr(edgeformer.api, name)
assert call is getattr(ef, name), call
assert inspect.signature(call) == inspect.signature(function)
text = pydoc.render_doc(call)
assert inspect.getdoc(function).splitlines()[0] in text and "progress: 'Progress | None' = None" in text
module = sys.modules[f"edgeformer.{name}.{module}"]
assert getattr(call, module.__name__.rpartition(".")[2]) is module
try:
    call(no_such_option=1)
except TypeError as error:
    assert "no_such_option" in str(error) or "missing" in str(error)
else:
    raise AssertionError("called with an option that is none")
"""
ORDERS = {
    "the function first": "import edgeformer as ef; call = ef.{name}; import edgeformer.{name}.{module}",
    "the module first": "import edgeformer.{name}.{module}; import edgeformer as ef; call = ef.{name}",
    "the module by from": "from edgeformer.{name} import {module}; from edgeformer import {name} as call",
    "the api first": "import edgeformer.api; from edgeformer.{name} import {module}; call = edgeformer.{name}",
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_package_is_called_in_whatever_order_it_is_imported(order: str) -> None:
    script = ""
    for name, module in PACKAGES.items():
        names = f"name, module = {name!r}, {module!r}"
        script += f"{names}\n{ORDERS[order].format(name=name, module=module)}\n{names}\n{CHECK}"
    python(script)


def test_all_that_is_public_is_there() -> None:
    assert set(ef.__all__) <= set(dir(ef))
    assert [name for name in ef.__all__ if getattr(ef, name) is None] == []
    assert ef.load is edgeformer_runtime.load
    assert ef.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        ef.frobnicate  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_is_documented(name: str) -> None:
    function = getattr(api, name)
    text = inspect.getdoc(function) or ""
    documented = text[text.index("Args:") : text.index("Raises:")]
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}:" in documented or f"{parameter}, " in documented, parameter
    assert ">>> " in text


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: ef.convert("x", "o", target="tpu"), "unknown target 'tpu'"),
        (lambda: ef.convert("x", "o", target=()), "expected at least one target, found none"),
        (lambda: ef.convert("x", "o", precision=["fp32", "int3"]), "int3"),
        (lambda: ef.convert("x", "o", seq_len="32"), "expected --seq-len as whole numbers, found '32'"),
        (lambda: ef.convert("x", "o", seq_len=()), "expected sequence lengths"),
        (lambda: ef.convert("x", "o", eval_data="nowhere.csv"), "no data at nowhere.csv"),
        (lambda: ef.convert("nowhere/at/all", "o"), "there is no such folder"),
        (lambda: ef.verify("nowhere"), "no bundle at nowhere"),
        (lambda: ef.verify("nowhere", source="x"), "--source is for --layers"),
        (lambda: ef.evaluate("nowhere", "nothing.csv"), "no data at nothing.csv"),
        (lambda: ef.evaluate("nowhere", __file__, limit=0), "expected --limit as at least 1 example, found 0"),
        (lambda: ef.benchmark("nowhere", against="pytorch"), "did you mean torch?"),
        (lambda: ef.benchmark("nowhere", on=()), "expected at least one machine"),
        (lambda: ef.doctor("nowhere"), "no bundle at nowhere"),
        (lambda: ef.doctor("nowhere", min_ios="new"), "expected --min-ios as a version"),
        (lambda: ef.compress("x", __file__, "o"), "expected --recipe"),
        (lambda: ef.compress("x", __file__, "o", budget="size<=1X"), "budget"),
        (lambda: ef.compress("x", __file__, "o", budget="size<=1MB", resume=True), "are for recipes"),
    ],
)
def test_what_a_command_refuses_with_2_is_raised(call: Any, problem: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ef.InputError, ef.BundleError)) as found:
        call()
    assert problem in str(found.value)
    assert list(tmp_path.iterdir()) == []


class _Cells(HTMLParser):
    """The texts of a page's cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that examples speak of: a checkpoint and labelled texts."""
    folder = tmp_path_factory.mktemp("api")
    save_mobilebert(folder / "intents", num_hidden_layers=1)
    texts = ("turn the lights on", "call my bank", "music off", "lights off please", "what is the weather", "remind me")
    rows = "".join(f"{text},LABEL_{number % 3}\n" for number, text in enumerate(texts))
    (folder / "intents.csv").write_text(f"text,label\n{rows}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.mark.slow
def test_examples_run(work: Path) -> None:  # noqa: ARG001
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    ran = []
    for function in (api.convert, api.verify, api.evaluate, api.benchmark, api.doctor, api.compress, ef.load):
        for example in finder.find(function, globs={"ef": ef}):
            result = runner.run(example)
            assert result.failed == 0, example.name
            ran.append(result.attempted)
    assert len(ran) == 7 and min(ran) > 1


@pytest.mark.slow
def test_results_show_what_the_command_prints(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    told: list[tuple[str, int, int]] = []
    result = ef.convert("intents", work / "shown", target="onnx", seq_len=16, progress=lambda *at: told.append(at))
    assert capfd.readouterr() == ("", "")  # neither bars nor lines
    assert [finished for _, finished, _ in told] == [0, 1, 2, 3] and {total for *_, total in told} == {3}
    (bundle,) = result
    assert result[0] is bundle and len(result) == 1 and result.bundles == result[:]
    assert "intents.onnx.fp32" in repr(result) and repr(bundle) == repr(result)
    cells = _Cells(result._repr_html_() or "")
    assert cells.tags[0] == "table" and {"bundle", "size", "intents.onnx.fp32"} <= set(cells.texts)
    found = ef.verify(bundle.path)
    command = subprocess.run(
        [Path(sys.executable).with_name("edgeformer"), "verify", bundle.path],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert [line.split() for line in repr(found).splitlines()] == [line.split() for line in command.stdout.splitlines()]
    assert capfd.readouterr() == ("", "")


def test_markup_of_strangers_is_escaped() -> None:
    name = "<script>alert(1)</script>\x1b[2J"
    found = ef.Verification(False, "an engine", (Stage(name, None, None, 0.0, ok=False),), name)
    page = found._repr_html_() or ""
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in page and "\x1b" not in repr(found)

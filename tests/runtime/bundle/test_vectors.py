"""Reading and writing recorded vectors."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutations import reseal
from safetensors.numpy import load_file, save_file
from tiny_bundle import SAMPLES, manifest, seal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import Case, Tolerances, longest_case, read_vectors, write_vectors
from edgeformer_runtime.errors import BundleError, InputError

CASES = Path("vectors/cases.json")
TENSORS = Path("vectors/tensors.safetensors")
GOLDEN = Path(__file__).parents[2] / "golden"


def test_what_is_read_is_what_was_written(tiny: Path, tmp_path: Path) -> None:
    with Bundle.open(tiny) as bundle:
        cases, tolerances = read_vectors(bundle)
    assert [case.raw for case in cases] == list(SAMPLES)
    assert [case.program for case in cases] == ["seq_8", "seq_8", "seq_8", "seq_16", "seq_8"]
    assert cases[0].inputs["input_ids"].tolist() == [[2, 4, 5, 6, 7, 11, 3, 0]]
    assert cases[0].inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 1, 0]]
    assert tolerances == Tolerances(1e-4, 1e-4)
    write_vectors(tmp_path, cases, tolerances, bundle.manifest)
    for name in (CASES, TENSORS):
        assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()


def test_longest_case(tiny: Path) -> None:
    with Bundle.open(tiny) as bundle:
        assert longest_case(bundle).program == "seq_16"
        assert longest_case(bundle, "seq_8").program == "seq_8"
        with pytest.raises(InputError, match="unknown program 'x': expected one of seq_8, seq_16"):
            longest_case(bundle, "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reference_without_numbers_is_not_recorded(tmp_path: Path, bad: float) -> None:
    output = np.array([[1, bad]], dtype=np.float32)
    case = Case("p", {"text": "x"}, {}, {"input_ids": np.ones((1, 2), np.int32)}, {"output": output})
    with pytest.raises(BundleError, match="case 0: the reference's 'output' holds NaN or infinity"):
        write_vectors(tmp_path, [case], Tolerances(0.1, 0.1), manifest())
    assert not list(tmp_path.iterdir())


def test_tolerances_are_fractions() -> None:
    with pytest.raises(BundleError, match="expected 0 to 1, found 2"):
        Tolerances(2, 0.1)
    with pytest.raises(BundleError, match="found nan"):
        Tolerances(0.1, float("nan"))


def reseal_and_read(folder: Path) -> str:
    """The message with which corrupted vectors under a valid manifest are refused."""
    seal(folder, manifest())
    with Bundle.open(folder) as bundle, pytest.raises(BundleError) as caught:
        read_vectors(bundle)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(more=1), "unknown key 'more'"),
        (lambda d: d.pop("tolerances"), "the key 'tolerances' is missing"),
        (lambda d: d["tolerances"].update(output=-1), "tolerances.output: minimum is 0"),
        (lambda d: d["cases"][0].update(program="x"), "unknown program 'x': expected one of seq_8, seq_16"),
        (
            lambda d: d["cases"][0]["input"].update(token_ids=[1]),
            "expected text or text with pair or token_ids, found text and token_ids",
        ),
        (
            lambda d: d["cases"][0].update(input={"image": "vectors/cases.png"}),
            "text with pair or token_ids, found image",
        ),
        (lambda d: d["cases"][0].update(input={"token_ids": [2, 4.0]}), "cases[0]: expected integers, found 4.0"),
        (lambda d: d["cases"][0].update(input={}), "cases[0].input: minProperties"),
        (lambda d: d["cases"][0].update(input={"pair": "x"}), "cases[0].input: "),
        (lambda d: d["cases"][0].update(expected={}), "a score for each label"),
        (lambda d: d["cases"][0]["expected"]["labels"].pop(), "a score for each label"),
        (lambda d: d["cases"][0]["expected"]["scores"].__setitem__(0, 2), "numbers from 0 to 1"),
        (lambda d: d["cases"][0]["expected"]["scores"].__setitem__(0, 10**400), "is out of range"),
        (lambda d: d["cases"][0]["expected"].update(dict.fromkeys(map(str, range(200_001)))), "keys: expected 200000"),
        (lambda d: d["cases"].pop(), "unknown tensor '4/attention_mask'"),
        (lambda d: d["cases"].append(d["cases"][0]), "the tensor '5/input_ids' is missing"),
        (lambda d: d["cases"][3].update(program="seq_8"), "expected int32 (1, 8), found int32 (1, 16)"),
    ],
)
def test_corrupted_cases(tiny: Path, change: Callable[[dict], object], problem: str) -> None:
    document = json.loads((tiny / CASES).read_text(encoding="utf-8"))
    change(document)
    (tiny / CASES).write_text(json.dumps(document), encoding="utf-8")
    assert problem in reseal_and_read(tiny)


@pytest.mark.parametrize(
    ("archive", "key", "change", "problem"),
    [
        ("tiny-spans.zip", "answers", lambda d: d["answers"][0].update(start=1.0), "expected integers, found 1.0"),
        ("tiny-entities.zip", "entities", lambda d: d["entities"][0].update(end=2.0), "expected integers, found 2.0"),
        ("tiny-spans.zip", "answers", lambda d: d["answers"][0].update(start=1), "expected places in the text"),
        ("tiny-entities.zip", "entities", lambda d: d.update(answers=[]), "expected entities, found answers and"),
        (
            "tiny-spans.zip",
            "answers",
            lambda d: d.update(labels=["O"], scores=[1]),
            "expected answers, found answers and",
        ),
        ("tiny-spans.zip", "answers", lambda d: d.clear(), "expected answers, found nothing"),
    ],
)
def test_corrupted_places(
    archive: str, key: str, change: Callable[[dict], object], problem: str, tmp_path: Path
) -> None:
    """What stands in other keys than the task's is refused here as in Kotlin and Swift."""
    with zipfile.ZipFile(GOLDEN / archive) as file:
        files = {name: file.read(name) for name in file.namelist()}
    document = json.loads(files[CASES.as_posix()])
    change(next(case["expected"] for case in document["cases"] if case["expected"][key]))
    files[CASES.as_posix()] = json.dumps(document).encode()
    reseal(files)
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with Bundle.open(tmp_path) as bundle, pytest.raises(BundleError, match=problem):
        read_vectors(bundle)


def test_a_program_without_a_case(tiny: Path) -> None:
    document = json.loads((tiny / CASES).read_text(encoding="utf-8"))
    document["cases"] = document["cases"][:3]
    (tiny / CASES).write_text(json.dumps(document), encoding="utf-8")
    tensors = {key: value for key, value in load_file(tiny / TENSORS).items() if key[0] in "012"}
    save_file(tensors, tiny / TENSORS)
    assert "no case runs the program 'seq_16'" in reseal_and_read(tiny)


HEADER = json.dumps({"__metadata__": dict.fromkeys(map(str, range(200_001)), "")}).encode()
TOO_MANY = struct.pack("<Q", len(HEADER)) + HEADER


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      ", TOO_MANY], ids=range(4))
def test_corrupted_tensor_file(tiny: Path, data: bytes) -> None:
    (tiny / TENSORS).write_bytes(data)
    assert "vectors/tensors.safetensors: " in reseal_and_read(tiny)


def test_corrupted_tensors(tiny: Path) -> None:
    good = load_file(tiny / TENSORS)
    for value, problem in (
        (good["0/output"].astype(np.float64), "expected float32 (1, 3), found float64 (1, 3)"),
        (good["0/output"][0], "found float32 (3,)"),
        (good["0/output"] * np.float32("nan"), "0/output holds NaN or infinity"),
    ):
        save_file(good | {"0/output": value}, tiny / TENSORS)
        assert problem in reseal_and_read(tiny)


@pytest.mark.parametrize(
    ("name", "number", "problem"),
    [
        ("input_ids", 1 << 20, "expected numbers from 0 to "),
        ("input_ids", -1, "expected numbers from 0 to "),
        ("attention_mask", 2, "expected numbers from 0 to 1, found "),
    ],
)
def test_numbers_that_the_model_has_no_row_for(tiny: Path, name: str, number: int, problem: str) -> None:
    """ExecuTorch's Python binding ends the process where an embedding is asked for such a row."""
    tensors = load_file(tiny / TENSORS)
    tensors[f"0/{name}"][0, 0] = number
    save_file(tensors, tiny / TENSORS)
    assert f"0/{name}: {problem}" in reseal_and_read(tiny)


def test_a_bundle_without_vectors_runs_but_has_nothing_to_verify(tiny: Path) -> None:
    (tiny / CASES).unlink()
    (tiny / TENSORS).unlink()
    (tiny / "vectors").rmdir()
    assert "has no recorded vectors" in reseal_and_read(tiny)

"""The schemas' own checker: it says yes and no as jsonschema does, and stops at the first error."""

from __future__ import annotations

import copy
import json
import random
import time
from importlib import resources
from typing import Any

import pytest
from tiny_bundle import manifest
from tiny_speech_bundle import manifest as speech_manifest

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.manifest import parse
from edgeformer_runtime.errors import BundleError

jsonschema = pytest.importorskip("jsonschema", reason="what the checker is compared with")

SCHEMAS = ("manifest.schema.json", "cases.schema.json")


def document(name: str) -> dict[str, Any]:
    return json.loads(resources.files("edgeformer_runtime").joinpath(name).read_text(encoding="utf-8"))


def audio(name: str) -> list[dict[str, Any]]:
    """Documents that follow a schema, but for what was not filled in."""
    if name == "cases.schema.json":
        cases = [
            {"program": "a", "input": {"text": "x", "pair": "y"}, "expected": {"labels": ["a"], "scores": [0.5]}},
            {"program": "b", "input": {"token_ids": [1, 2]}, "expected": {}},
            {
                "program": "c",
                "input": {"audio": "vectors/a.wav", "samples": 3},
                "expected": {"text": "", "prompt": [1], "tokens": []},
            },
            {"program": "d", "input": {"image": "vectors/a.png"}, "expected": {}},
        ]
        return [{"cases": cases, "tolerances": {"output": 0.1, "score": 1}}]
    entry = {"sha256": "0" * 64, "size": 1}
    return [each.to_data() | {"files": {"model.bin": entry}} for each in (manifest(), speech_manifest())]


VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    1.5,
    1 << 40,
    "",
    "x",
    "0" * 64,
    "a\n",
    "text",
    "image",
    "audio",
    [],
    {},
    [1],
    ["x"],
    {"kind": "text"},
)


def changed(value: Any, rng: random.Random) -> Any:
    """A copy with one value somewhere replaced, removed or added."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
            place = place[key]
            continue
        match rng.randrange(4):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[rng.choice(("own", "kind", "text", "labels", "pair", "samples"))] = rng.choice(VALUES)
            case _:
                place[key] = rng.choice(VALUES)
        return value


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_agrees_with_jsonschema(name: str) -> None:
    reference = jsonschema.Draft202012Validator(document(name))
    rng, refused = random.Random(name), 0
    originals = audio(name)
    for original in originals:
        strict_json.check(original, name, "t")
    for number in range(1500):
        value = changed(rng.choice(originals), rng)
        if number % 2:
            value = changed(value, rng)
        valid = reference.is_valid(value)
        try:
            strict_json.check(value, name, "t")
        except BundleError as error:
            assert not valid, error
            assert "\n" not in str(error)
            refused += 1
        else:
            assert valid, next(reference.iter_errors(value)).message
    assert 300 < refused < 1500


def test_every_keyword_of_the_schemas_is_known() -> None:
    def keywords(part: Any) -> set[str]:
        if not isinstance(part, dict):
            return set()
        found = set(part)
        for key, inner in part.items():
            if key in ("properties", "$defs"):
                found |= set().union(*(keywords(each) for each in inner.values()))
            elif key == "allOf":
                found |= set().union(*(keywords(branch[each]) for branch in inner for each in ("if", "then")))
                assert all(set(branch) == {"if", "then"} for branch in inner)
            elif key != "dependentRequired":
                found |= keywords(inner)
        return found

    for name in SCHEMAS:
        assert keywords(document(name)) <= strict_json._KEYWORDS


@pytest.mark.parametrize(
    "labels", [[1] * 1_000_000, [""] * 600_000, ["a"] * 1_000_000, [[]] * 900_000, [1] * 100_000, list(range(400_000))]
)
def test_a_million_wrong_labels_cost_no_more_than_reading_them(labels: list[Any]) -> None:
    data = manifest().to_data() | {"files": {"model.bin": {"sha256": "0" * 64, "size": 1}}}
    data["postprocessing"]["labels"] = labels
    text = json.dumps(data, separators=(",", ":"))
    started = time.process_time()
    with pytest.raises(BundleError, match="labels"):
        parse(text)
    assert time.process_time() - started < 30  # CPU seconds, of which there were 129


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x85", "\x9b", "\u202a", "\u202e", "\u2066", "\u2069"])
@pytest.mark.parametrize("field", ["labels", "license", "source", "toolchain"])
def test_characters_that_a_terminal_obeys_are_refused(field: str, character: str) -> None:
    data = manifest().to_data() | {"files": {"model.bin": {"sha256": "0" * 64, "size": 1}}}
    text = f"a{character}b"
    match field:
        case "labels":
            data["postprocessing"]["labels"][0] = text
        case "source":
            data["source"]["id"] = text
        case "toolchain":
            data["toolchain"] = {text: "1"}
        case _:
            data["license"] = text
    with pytest.raises(BundleError, match="holds a control character") as caught:
        parse(json.dumps(data))
    assert character not in str(caught.value)


def test_labels_of_every_script_are_taken() -> None:
    data = manifest().to_data()
    data["files"] = {name: {"sha256": "0" * 64, "size": 1} for name in ("model.bin", "tokenizer.json")}
    labels = ["עברית\u200f", "عربي\u061c", "👩\u200d👧", *data["postprocessing"]["labels"][3:]]
    data["postprocessing"]["labels"] = labels[: len(data["postprocessing"]["labels"])]
    assert list(parse(json.dumps(data)).postprocessing.labels) == data["postprocessing"]["labels"]

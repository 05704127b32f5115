"""Writes manifests.json: manifests that a reader takes, and small edits of them that it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle.manifest import Manifest, parse
from tests.golden import tiny_manifests as tiny
from tests.golden.golden_files import document

Edit = Callable[[Any], object]
"""Changes a manifest as JSON, in place."""


def files() -> dict[str, bytes]:
    """The golden file by name."""
    good = {name: _text(manifest) for name, manifest in _good()}
    cases: list[dict[str, Any]] = [_good_case(name, text) for name, text in good.items()]
    cases += [_good_case(name, text) for name, text in _other_layouts(good["text"])]
    for base, name, edit in _bad_values():
        value = json.loads(good[base])
        edit(value)
        cases.append(
            _edited(base, name, good[base], json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n")
        )
    cases += [_edited("text", name, good["text"], text) for name, text in _bad_texts(good["text"])]
    return {"manifests.json": document(f"edgeformer-runtime {__version__}", cases)}


def apply(case: dict[str, Any], texts: dict[str, str]) -> str:
    """The text of a case, from those of the good ones by name."""
    if "text" in case:
        return str(case["text"])
    base = texts[case["base"]]
    assert base.count(case["find"]) == 1
    return base.replace(case["find"], case["put"])


def _good() -> Iterator[tuple[str, Manifest]]:
    yield "text", tiny.text()
    yield "embedding", tiny.text("text-embedding", "litert")
    yield "packed", tiny.packed()
    yield "score", tiny.text("text-scoring")
    yield "spans", tiny.spans()
    yield "entities", tiny.entities()
    yield "fills", tiny.fills()
    yield "image", tiny.image()
    yield "image-embedding", tiny.image_embedding()
    yield "speech", tiny.speech()
    yield "speech-multilingual", tiny.speech(tiny.MULTILINGUAL_TOKENS, "program", "executorch")


def _text(manifest: Manifest) -> str:
    return replace(manifest, files=tiny.listed(manifest)).to_json()


def _good_case(name: str, text: str) -> dict[str, Any]:
    found = parse(text)
    return {
        "name": name,
        "text": text,
        "error": None,
        "facts": {
            "name": found.name,
            "task": found.task,
            "target": found.target,
            "programs": [program.name for program in found.programs],
            "preprocessing": found.preprocessing.kind,
            "postprocessing": found.postprocessing.kind,
            "files": sorted(found.files),
            "android_api": found.requires.android_api,
        },
    }


def _other_layouts(text: str) -> Iterator[tuple[str, str]]:
    """The same values in other words: readers accept any layout."""
    value = json.loads(text)
    yield "minified, keys reversed", json.dumps(dict(reversed(value.items())), separators=(",", ":"))
    value["postprocessing"]["labels"] = ["caf\u00e9", "\U0001f600", "\u4f60\u597d"]
    yield "escapes", json.dumps(value, ensure_ascii=True)
    yield "Unicode", "\t\r\n " + json.dumps(value, ensure_ascii=False) + "\r\n\t "


def _edited(base: str, name: str, before: str, after: str) -> dict[str, Any]:
    """An edit as the shortest piece of whole lines around what differs that occurs once."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    tail = 0
    while tail < min(len(before), len(after)) - start and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    end = len(before) - tail
    while before.count(before[start:end]) != 1 or start == end:
        start, end = max(0, start - 1), min(len(before), end + 1)
    put = after[start : len(after) - (len(before) - end)]
    return {"name": f"{base}: {name}", "base": base, "find": before[start:end], "put": put, "error": "BundleError"}


def _set(*path: Any, to: Any) -> Edit:
    def edit(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return edit


def _drop(*path: Any) -> Edit:
    def edit(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return edit


def _rename_file(old: str, new: str) -> Edit:
    def edit(value: Any) -> None:
        value["files"][new] = value["files"].pop(old)

    return edit


def _bad_values() -> Iterator[tuple[str, str, Edit]]:
    """Well-formed JSON that is no manifest."""
    for key in ("attention", "files", "format_version", "license", "requires", "toolchain"):
        yield "text", f"no {key}", _drop(key)
    yield "text", "unknown key", _set("more", to=1)
    yield "packed", "unknown key inside the packed program", _set("packed", "more", to=1)
    yield "text", "unknown key inside", _set("programs", 0, "more", to=1)
    yield "text", "newer format", _set("format_version", to=2)
    yield "text", "older format", _set("format_version", to=0)
    yield "text", "float version", _set("format_version", to=1.0)
    yield "text", "true as version", _set("format_version", to=True)
    yield "text", "newer runtime", _set("requires", "runtime", to="99.0.0")
    yield "text", "no version", _set("requires", "runtime", to="1.0")
    yield "text", "leading zero", _set("requires", "runtime", to="0.01.0")
    yield "text", "float API level", _set("requires", "android_api", to=26.0)
    yield "text", "API level 0", _set("requires", "android_api", to=0)
    yield "text", "iOS as number", _set("requires", "ios", to=18)
    yield "text", "name with a slash", _set("name", to="a/b")
    yield "text", "no name", _set("name", to="")
    yield "text", "name of 129", _set("name", to="a" * 129)
    yield "text", "unknown task", _set("task", to="translation")
    yield "text", "unknown target", _set("target", to="tensorrt")
    yield "text", "empty license", _set("license", to="")
    yield "text", "control character", _set("source", "id", to="a\u0001")
    yield "text", "newline", _set("source", "id", to="a\n")
    for character in ("\u007f", "\u009b", "\u202e", "\u2066"):
        yield "text", f"label with U+{ord(character):04X}", _set("postprocessing", "labels", 0, to=f"a{character}b")
    yield "text", "hash in capitals", _set("source", "weights_sha256", to="A" * 64)
    yield "text", "short hash", _set("files", "model.bin", "sha256", to="0" * 63)
    yield "text", "negative size", _set("files", "model.bin", "size", to=-1)
    yield "text", "size as text", _set("files", "model.bin", "size", to="1")
    yield "text", "size beyond 4 GiB", _set("files", "model.bin", "size", to=1 << 32)
    yield "text", "huge size", _set("files", "model.bin", "size", to=10**30)
    yield "text", "float size", _set("files", "model.bin", "size", to=1.5)
    yield "text", "no files", _set("files", to={})
    yield "text", "files as list", _set("files", to=[])
    yield "text", "file above", _rename_file("report.json", "../report.json")
    yield "text", "file at the root", _rename_file("report.json", "/report.json")
    yield "text", "drive", _rename_file("report.json", "C:report.json")
    yield "text", "backslash", _rename_file("report.json", "a\\report.json")
    yield "text", "empty part", _rename_file("report.json", "a//report.json")
    yield "text", "dot", _rename_file("report.json", "./report.json")
    yield "text", "trailing dot", _rename_file("report.json", "report.")
    yield "text", "device", _rename_file("report.json", "nul.json")
    yield "text", "device in capitals", _rename_file("report.json", "LPT1")
    yield "text", "umlaut in a name", _rename_file("report.json", "r\u00e9port.json")
    yield "text", "space in a name", _rename_file("report.json", "re port.json")
    yield "text", "long name", _rename_file("report.json", "a" * 256)
    yield "text", "deep name", _rename_file("report.json", "/".join("a" * 17))
    yield "text", "other case", _rename_file("report.json", "Model.bin")
    yield "text", "folder in other case", _rename_file("report.json", "Vectors/report.json")
    yield "text", "the manifest", _rename_file("report.json", "manifest.json")
    yield "text", "file and folder", _rename_file("report.json", "model.bin/report.json")
    yield "text", "cases without tensors", _drop("files", "vectors/tensors.safetensors")
    yield "text", "no programs", _set("programs", to=[])
    yield "text", "65 programs", lambda m: m["programs"].extend([m["programs"][0]] * 63)
    yield "text", "program twice", lambda m: m["programs"].append(m["programs"][0])
    yield "text", "reserved program", _set("programs", 0, "name", to="answer")
    yield "text", "model not listed", _set("programs", 0, "file", to="other.bin")
    yield "text", "model above", _set("programs", 0, "file", to="../model.bin")
    yield "text", "model as a folder", _set("programs", 0, "file", to="vectors")
    yield "text", "Core ML as a file", _set("target", to="coreml")
    yield "text", "empty entry", _set("programs", 0, "entry", to="")
    yield "text", "no inputs", _set("programs", 0, "inputs", to=[])
    yield "text", "input twice", lambda m: m["programs"][0]["inputs"].append(m["programs"][0]["inputs"][0])
    yield "text", "input as output", _set("programs", 0, "outputs", 0, "name", to="input_ids")
    yield "text", "unknown input", _set("programs", 0, "inputs", 1, "name", to="mask")
    yield "text", "no input_ids", lambda m: m["programs"][0]["inputs"].pop(0)
    yield "text", "float ids", _set("programs", 0, "inputs", 0, "dtype", to="float32")
    yield "text", "unknown dtype", _set("programs", 0, "inputs", 0, "dtype", to="int64")
    yield "text", "lengths differ", _set("programs", 0, "inputs", 0, "shape", to=[1, 9])
    yield (
        "text",
        "a batch",
        _set("programs", 0, "inputs", to=[{"dtype": "int32", "name": "input_ids", "shape": [2, 8]}]),
    )
    yield "text", "dimension 0", _set("programs", 0, "outputs", 0, "shape", to=[1, 0])
    yield "text", "float dimension", _set("programs", 0, "outputs", 0, "shape", to=[1.0, 3])
    yield "text", "length twice", lambda m: [i.update(shape=[1, 8]) for i in m["programs"][1]["inputs"]]
    yield (
        "text",
        "two outputs",
        lambda m: m["programs"][0]["outputs"].append({"dtype": "float32", "name": "b", "shape": [1, 3]}),
    )
    yield "text", "integer logits", _set("programs", 0, "outputs", 0, "dtype", to="int32")
    yield "text", "too few logits", _set("postprocessing", "labels", to=["a", "b"])
    yield "text", "label twice", _set("postprocessing", "labels", to=["a", "b", "a"])
    yield "text", "no labels", _set("postprocessing", "labels", to=[])
    yield "text", "empty label", _set("postprocessing", "labels", to=["a", "b", ""])
    yield "text", "label of 501", _set("postprocessing", "labels", to=["a", "b", "c" * 501])
    yield "text", "unknown activation", _set("postprocessing", "activation", to="relu")
    yield "text", "unknown head", _set("postprocessing", "kind", to="regression")
    yield "text", "head of another task", _set("task", to="text-embedding")
    yield "text", "tokenizer not listed", _set("preprocessing", "tokenizer", to="other.json")
    yield "text", "negative padding", _set("preprocessing", "pad_token_id", to=-1)
    yield "text", "padding beyond", _set("preprocessing", "pad_token_id", to=12)
    yield "text", "unknown preprocessing", _set("preprocessing", "kind", to="video")
    yield "text", "kind as number", _set("preprocessing", "kind", to=1)
    yield "text", "operator 0 times", _set("operators", "ADD", to=0)
    yield "text", "nested too deep", _set("toolchain", to=_nested(40))
    yield "embedding", "other width", _set("postprocessing", "dim", to=5)
    yield "embedding", "normalized as text", _set("postprocessing", "normalized", to="yes")
    yield "score", "softmax of one number", _set("postprocessing", "activation", to="softmax")
    yield "score", "two numbers", _set("programs", 0, "outputs", 0, "shape", to=[1, 2])
    for head, most in (("spans", 24), ("entities", 24)):
        yield head, "no tokenizer", _set("preprocessing", "tokenizer", to=None)
        yield head, "stride beyond half of the longest program", _set("postprocessing", "stride", to=most + 1)
        yield head, "negative stride", _set("postprocessing", "stride", to=-1)
        yield head, "output of another length", _set("programs", 0, "outputs", 0, "shape", 1, to=23)
        yield head, "output without tokens", _set("programs", 0, "outputs", 0, "shape", to=[1, 2])
    for count in (0, 513, 1.5):
        yield "spans", f"answers of {count} tokens", _set("postprocessing", "max_answer_tokens", to=count)
    yield "spans", "another task's head", _set("postprocessing", "kind", to="entities")
    yield "entities", "aggregation that is none", _set("postprocessing", "aggregation", to="best")
    yield "entities", "label twice", _set("postprocessing", "labels", to=["O", "O", "A"])
    yield "entities", "labels of another number", _set("postprocessing", "labels", to=["O", "A"])
    yield "entities", "no labels", _set("postprocessing", "labels", to=[])
    yield "entities", "empty label outside", _set("postprocessing", "outside", to=[""])
    yield "fills", "no tokenizer of a mask", _set("preprocessing", "tokenizer", to=None)
    yield "fills", "no size of the vocabulary", _set("preprocessing", "vocab_size", to=None)
    yield "fills", "mask beyond the vocabulary", _set("postprocessing", "mask_token_id", to=12)
    yield "fills", "mask that is padding", _set("postprocessing", "mask_token_id", to=0)
    yield "fills", "no mask", _set("postprocessing", "mask_token", to="")
    yield "fills", "logits of another number", _set("programs", 0, "outputs", 0, "shape", to=[1, 11])
    yield "fills", "no position of the mask", _set("programs", 1, "inputs", 2, "name", to="token_type_ids")
    yield "image", "crop larger than image", _set("preprocessing", "resize_short_side", to=20)
    yield "image", "std 0", _set("preprocessing", "std", 0, to=0)
    yield "image", "two means", _set("preprocessing", "mean", to=[0.5, 0.5])
    yield "image", "BGR", _set("preprocessing", "channels", to="BGR")
    yield "image", "unknown filter", _set("preprocessing", "interpolation", to="lanczos")
    yield "image", "other size", _set("preprocessing", "width", to=25)
    yield "image", "other program", _set("programs", 0, "name", to="main")
    yield "image", "other input", _set("programs", 0, "inputs", 0, "name", to="image")
    yield "speech", "filters not listed", _drop("files", "mel_filters.safetensors")
    yield "speech", "odd n_fft", _set("preprocessing", "n_fft", to=401)
    yield "speech", "hop beyond n_fft", _set("preprocessing", "hop_length", to=500)
    yield "speech", "no floor", _set("preprocessing", "log_floor", to=0)
    yield "speech", "window longer than buckets", _set("preprocessing", "window_seconds", to=2)
    yield "speech", "other bands", _set("preprocessing", "n_mels", to=128)
    yield "speech", "buckets fall", lambda m: m["postprocessing"]["buckets"].reverse()
    yield "speech", "no buckets", _set("postprocessing", "buckets", to=[])
    yield "speech", "bucket without program", _set("postprocessing", "buckets", 0, "encode", to="encode_1")
    yield "speech", "program without bucket", lambda m: m["programs"].append(m["programs"][0] | {"name": "more"})
    yield "speech", "other rows", _set("postprocessing", "buckets", 0, "rows", to=25)
    yield "speech", "three rows", _set("postprocessing", "buckets", 0, "rows", to=3)
    yield "speech", "inputs in another order", lambda m: m["programs"][1]["inputs"].reverse()
    yield "speech", "an output less", lambda m: m["programs"][1]["outputs"].pop()
    yield "speech", "other state", _set("postprocessing", "state", to="program")
    yield "speech", "unknown state", _set("postprocessing", "state", to="cloud")
    yield "speech", "token beyond the vocabulary", _set("postprocessing", "tokens", "end", to=tiny.VOCABULARY)
    yield "speech", "suppressed beyond the vocabulary", _set("postprocessing", "suppress", to=[tiny.VOCABULARY])
    yield "speech", "no end", _set("postprocessing", "tokens", "end", to=None)
    yield "speech", "language in capitals", _set("postprocessing", "tokens", "languages", to={"EN": 1})
    yield "speech", "prefill of one", _set("postprocessing", "prefill_tokens", to=1)


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


def _bad_texts(text: str) -> Iterator[tuple[str, str]]:
    """Texts that are no JSON, or that parsers read differently."""

    def swap(old: str, new: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    yield "key twice", swap('"family": "bert",', '"family": "bert",\n  "family": "bert",')
    yield "key twice, once escaped", swap('"family": "bert",', '"family": "bert",\n  "\\u0066amily": "bert",')
    yield "NaN", swap('"android_api": 26', '"android_api": NaN')
    yield "Infinity", swap('"android_api": 26', '"android_api": -Infinity')
    yield "beyond floats", swap('"android_api": 26', '"android_api": 1e999')
    yield "exponent as integer", swap('"android_api": 26', '"android_api": 2e1')
    yield "leading zero of a number", swap('"android_api": 26', '"android_api": 026')
    yield "plus", swap('"android_api": 26', '"android_api": +26')
    yield "hexadecimal", swap('"android_api": 26', '"android_api": 0x1a')
    yield "dot without digits", swap('"android_api": 26', '"android_api": 26.')
    yield "capital null", swap('"revision": null', '"revision": None')
    yield "single quotes", swap('"bert"', "'bert'")
    yield "no quotes", swap('"family"', "family")
    yield "trailing comma", swap('"float32"\n  },', '"float32",\n  },')
    yield "comment", swap('"family": "bert",', '"family": "bert", // BERT')
    yield "no comma", swap('"family": "bert",', '"family": "bert"')
    yield "unknown escape", swap('"bert"', '"b\\x65rt"')
    yield "short escape", swap('"bert"', '"b\\u65rt"')
    yield "half of a pair", swap('"tests/tiny"', '"tests/\\ud83dtiny"')
    yield "other half of a pair", swap('"tests/tiny"', '"tests/\\ude00tiny"')
    yield "pair in the wrong order", swap('"tests/tiny"', '"tests/\\ude00\\ud83dtiny"')
    yield "bare newline", swap('"tests/tiny"', '"tests/\ntiny"')
    yield "bare tab", swap('"tests/tiny"', '"tests/\ttiny"')
    yield "bare NUL", swap('"tests/tiny"', '"tests/\0tiny"')
    yield "form feed between", swap('"family"', '\f"family"')
    yield "no-break space between", swap('"family"', '\u00a0"family"')
    yield "byte order mark", "\ufeff" + text
    yield "cut off", text[: len(text) // 2]
    yield "cut off at the end", re.sub(r"\}\s*$", "", text)
    yield "two values", text + "{}"
    yield "bracket too many", text + "]"
    yield "nothing", ""
    yield "a list", f"[{text}]"
    yield "a number", "1"

"""Zips, signatures and releases: what Python takes and refuses of the cases that Kotlin and Swift read, too."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime.bundle import archive, signature, site
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import Requirement, requirement_of
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from tests.golden.golden_files import FOLDER
from tests.golden.make_zips import apply

ERRORS: dict[str, type[EdgeFormerError]] = {"BundleError": BundleError, "InputError": InputError}


def _golden(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / name).read_text(encoding="utf-8")))


ZIPS, SIGNATURES, RELEASES = _golden("zips.json"), _golden("signatures.json"), _golden("releases.json")
PUBLISHED = _golden("published.json")


def _names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["name"] for case in cases]


@pytest.mark.parametrize("case", ZIPS["cases"], ids=_names(ZIPS["cases"]))
def test_a_zip_holds_no_bytes_but_its_members(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(apply(case, (FOLDER / ZIPS["base"]).read_bytes()))
    if case["error"] is not None:
        with pytest.raises(ERRORS[case["error"]]):
            Bundle.open(path)
        return
    with Bundle.open(path) as bundle:
        assert archive.is_canonical(path, bundle.members()) == case["canonical"]


@pytest.mark.parametrize("case", SIGNATURES["cases"], ids=_names(SIGNATURES["cases"]))
def test_a_signature_is_of_one_of_the_required_keys(case: dict[str, Any]) -> None:
    def check() -> signature.SignatureState:
        given = None if case["keys"] is None else [bytes.fromhex(key) for key in case["keys"]]
        found = None if case["signature"] is None else bytes.fromhex(case["signature"])
        return signature.check(SIGNATURES["manifest"].encode(), found, requirement_of(given).key_bytes())

    if case["error"] is not None:
        with pytest.raises(ERRORS[case["error"]]):
            check()
        return
    assert (check().checked_by is not None) == bool(case["keys"])


@pytest.mark.parametrize("case", RELEASES["cases"], ids=_names(RELEASES["cases"]))
def test_a_release_is_one_text(case: dict[str, Any]) -> None:
    data = case["text"].encode()
    if case["version"] is None:
        with pytest.raises(BundleError):
            signature.decode_release(data, RELEASES["bundle"])
    else:
        assert signature.decode_release(data, RELEASES["bundle"]) == case["version"]


@pytest.mark.parametrize("case", RELEASES["required"], ids=_names(RELEASES["required"]))
def test_a_release_is_compared_with_what_is_required(case: dict[str, Any]) -> None:
    def check() -> None:
        Requirement((), case["required"]["name"], case["required"]["version"]).check(case["bundle"], case["found"])

    if case["error"] is not None:
        with pytest.raises(ERRORS[case["error"]]):
            check()
    else:
        check()


@pytest.mark.parametrize("case", PUBLISHED["cases"], ids=_names(PUBLISHED["cases"]))
def test_an_index_is_signed_and_newer_than_what_was_seen(case: dict[str, Any]) -> None:
    keys = [bytes.fromhex(PUBLISHED["key"])]

    def read() -> site.Signed:
        known = None if case["known"] is None else site.read_index(case["known"].encode(), keys)
        found = site.read_index(case["text"].encode(), keys)
        site.check_newer(found, known, datetime.fromisoformat(PUBLISHED["now"]))
        return found

    if case["error"] is not None:
        with pytest.raises(ERRORS[case["error"]]):
            read()
        return
    found = read()
    assert {"number": found.index.number, "id": found.bundle("tiny").id} == case["facts"]

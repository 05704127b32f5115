"""An index is read strictly, after its signature: what it may say, and what happens to any other bytes."""

from __future__ import annotations

import hashlib
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from edgeformer_runtime.bundle.site import MAX_INDEX_BYTES, PublishedFile, read_index
from edgeformer_runtime.errors import BundleError

pytest.importorskip("cryptography")

from published import NOW, PUBLIC, SECRET, index, sign

FILE = {"sha256": "a" * 64, "size": 9, "deltas": [{"base": "b" * 64, "sha256": "c" * 64, "size": 3}]}


def read(values: Any) -> Any:
    return read_index(sign(values if isinstance(values, bytes) else json.dumps(values).encode()), [PUBLIC])


def one(**more: Any) -> dict[str, Any]:
    return index(3, {"tiny": {"files": {"manifest.json": FILE}}}, **more)


def test_what_it_says() -> None:
    found = read(one(later="a newer publisher's key"))
    assert (found.index.number, found.index.expires - found.index.published) == (3, timedelta(days=30))
    assert abs(found.index.published - NOW) < timedelta(seconds=1)
    file = found.bundle("tiny").files["manifest.json"]
    assert (file.sha256, file.size, [each.base for each in file.deltas]) == ("a" * 64, 9, ["b" * 64])
    assert [file.cost_bytes(have) for have in ({"a" * 64}, {"b" * 64}, set())] == [0, 3, 9]
    lines = f"{'a' * 64} manifest.json\n"
    assert found.bundle("tiny").id == hashlib.sha256(lines.encode()).hexdigest()


def changed(**values: Any) -> dict[str, Any]:
    return {**one(), **values}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(format_version=2), "made by a newer version"),
        (changed(number=0), "number: minimum is 1, found 0"),
        (changed(number=1.0), "expected an integer, found 1.0"),
        (changed(number=1 << 53), "number: maximum"),
        (changed(expires="2027-01-31"), "expires: "),
        (changed(expires="2027-13-31T00:00:00Z"), "expected a time like"),
        (changed(expires="2027-01-31T00:00:00Z\n"), "expires: "),
        (changed(bundles={}), "bundles: "),
        (changed(bundles={"a/b": {"files": {"x": FILE}}}), "without / or a dot"),
        (changed(bundles={".a": {"files": {"x": FILE}}}), "without / or a dot"),
        (changed(bundles={"..": {"files": {"x": FILE}}}), "points outside"),
        (changed(bundles={"a": {"files": {"x": FILE, "X": FILE}}}), "are the same on some file systems"),
        (changed(bundles={"a": {"files": {"x": {**FILE, "size": -1}}}}), "size: minimum is 0"),
        (changed(bundles={"a": {"files": {"x": {"size": 1}}}}), "the key 'sha256' is missing"),
        (changed(bundles={"a": {"files": {"x": {**FILE, "deltas": FILE["deltas"] * 17}}}}), "deltas: "),
        (b'{"number": 1, "number": 2}', "occurs twice"),
        (b"[" * 40 + b"]" * 40, "nested deeper"),
        (b"null", "expected object"),
        (b"\xff", "expected UTF-8"),
        (b" " * MAX_INDEX_BYTES, "expected at most"),
    ],
)
def test_what_it_may_not_say(values: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(values)


def test_no_changed_byte_is_believed() -> None:
    chance = random.Random(0)
    data = sign(json.dumps(one()).encode())
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if damaged != data:
            with pytest.raises(BundleError):
                read_index(bytes(damaged), [PUBLIC])


def test_no_signature_of_something_else_fits() -> None:
    """Neither of a bundle's manifest, nor of the same bytes without the domain."""
    content = json.dumps(one()).encode()
    for message in (content, b"edgeformer-bundle-manifest-1\n" + content):
        with pytest.raises(BundleError, match="not signed by a required key"):
            read_index(b"edgeformer-index-1 %s\n" % SECRET.sign(message).hex().encode() + content, [PUBLIC])


def test_any_signed_values_are_read_or_refused() -> None:
    """Whoever has the key may sign nonsense, which is a line for people and never a traceback."""
    chance = random.Random(1)
    strange = [None, True, 0, -1, 1.5, 1e300, "", "x", [], [[]], {}, {"files": {}}, {"a": {"files": {"b": {}}}}]
    for _ in range(400):
        values = json.loads(json.dumps(one()))
        node = values
        for _ in range(chance.randrange(6)):
            inner = [
                each for each in (node.values() if isinstance(node, dict) else node) if isinstance(each, (dict, list))
            ]
            if not inner:
                break
            node = chance.choice(inner)
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        node[key] = chance.choice(strange)
        try:
            read(values)
        except BundleError as error:
            assert "\n" not in str(error)


def test_a_file_is_its_own_cheapest_source() -> None:
    assert PublishedFile("a" * 64, 5).cost_bytes({"b" * 64}) == 5

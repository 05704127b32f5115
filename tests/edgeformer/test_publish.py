"""`publish` writes sites that `fetch` updates from, with deltas that pay, and never leaves one half written."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeformer import signing
from edgeformer.cli import app
from edgeformer.signing import make_keys, publish
from edgeformer_runtime.bundle.site import EMPTY, parse_index
from edgeformer_runtime.cli.app import app as runtime_app
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.fetch import fetch
from edgeformer_runtime.interface import silent
from edgeformer_runtime.verify import verify as verifying
from tests.runtime.tiny_bundle import TinyEngine, make_without_model, manifest, seal

pytest.importorskip("cryptography")

WEIGHTS = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one bundle, a cache of the test's own, and `release.pem` beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine())
    make_without_model(tmp_path / "dist" / "tiny.onnx.fp32")
    make_keys(tmp_path / "release.pem")
    retrain(tmp_path / "dist", WEIGHTS)
    return tmp_path / "dist"


def retrain(dist: Path, weights: np.ndarray) -> None:
    (dist / "tiny.onnx.fp32" / "model.bin").write_bytes(weights.tobytes())
    seal(dist / "tiny.onnx.fp32", manifest())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(dist: Path) -> Iterator[str]:
    """Where a server has `dist.site`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=f"{dist}.site"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_update_by_deltas(dist: Path, address: str) -> None:
    key = dist.parent / "release.pem"
    first = publish(dist, key)
    assert (first.site, first.number, first.update_bytes) == (dist.parent / "dist.site", 1, {})
    url, public = f"{address}/tiny.onnx.fp32", key.with_suffix(".pub")
    found = fetch(url, public, progress=silent)
    index_bytes = (first.site / "index.signed").stat().st_size
    assert found.received_bytes == first.first_bytes["tiny.onnx.fp32"] + index_bytes

    retrain(dist, WEIGHTS + np.float32(1e-4))
    second = publish(dist, key)
    assert second.update_bytes["tiny.onnx.fp32"] < 0.8 * WEIGHTS.nbytes
    updated = fetch(url, public, progress=silent)
    assert (updated.folder / "model.bin").read_bytes() == (dist / "tiny.onnx.fp32" / "model.bin").read_bytes()
    index_bytes = (first.site / "index.signed").stat().st_size
    assert updated.received_bytes == second.update_bytes["tiny.onnx.fp32"] + index_bytes


def test_a_delta_that_is_wrong_costs_a_whole_file(dist: Path, address: str) -> None:
    key = dist.parent / "release.pem"
    site = publish(dist, key).site
    url, public = f"{address}/tiny.onnx.fp32", key.with_suffix(".pub")
    fetch(url, public, progress=silent)
    retrain(dist, WEIGHTS + np.float32(1e-4))
    publish(dist, key)
    for file in parse_index((site / "index.signed").read_bytes()[148:]).bundles["tiny.onnx.fp32"].files.values():
        for delta in file.deltas:
            path = site / "files" / delta.sha256[:2] / delta.sha256
            path.write_bytes(bytes(path.stat().st_size))
    found = fetch(url, public, progress=silent)
    assert found.problem is None
    assert (found.folder / "model.bin").read_bytes() == (dist / "tiny.onnx.fp32" / "model.bin").read_bytes()


def test_what_is_kept_of_earlier_indexes(dist: Path) -> None:
    key = dist.parent / "release.pem"
    for number in range(1, 5):
        retrain(dist, WEIGHTS + np.float32(number * 1e-4))
        made = publish(dist, key, keep=1)
        assert made.number == number
    indexes = {file.name for file in (made.site / "indexes").iterdir()}
    assert indexes == {"3.signed", "4.signed"}
    contents = [parse_index((made.site / "indexes" / name).read_bytes()[148:]) for name in sorted(indexes)]
    files = [file for each in contents for file in each.bundles["tiny.onnx.fp32"].files.values()]
    listed = {*(file.sha256 for file in files), *(delta.sha256 for file in files for delta in file.deltas)}
    assert {file.name for file in (made.site / "files").glob("*/*")} == listed
    model = contents[1].bundles["tiny.onnx.fp32"].files["model.bin"]
    assert model.deltas[-1].base == contents[0].bundles["tiny.onnx.fp32"].files["model.bin"].sha256
    assert [file.name for file in made.site.iterdir() if file.name.startswith(".")] == []


def test_an_interruption_leaves_the_site_as_it_was(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = dist.parent / "release.pem"
    site = publish(dist, key).site
    before = (site / "index.signed").read_bytes()
    retrain(dist, WEIGHTS * 2)
    real, left = signing.put, 2

    def interrupted(made: Path, place: Path) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        real(made, place)

    with monkeypatch.context() as patch:
        patch.setattr(signing, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(dist, key)
    assert (site / "index.signed").read_bytes() == before
    for file in parse_index(before[148:]).bundles["tiny.onnx.fp32"].files.values():
        assert (site / "files" / file.sha256[:2] / file.sha256).stat().st_size == file.size
    assert publish(dist, key).number == 2


def test_what_cannot_be_published(dist: Path, tmp_path: Path) -> None:
    key = tmp_path / "release.pem"
    with pytest.raises(InputError, match="no bundles in it"):
        publish(tmp_path / "nothing", key)
    with pytest.raises(InputError, match="which it would corrupt"):
        publish(dist, key, dist / "tiny.onnx.fp32" / "site")
    with pytest.raises(InputError, match="this is a public key"):
        publish(dist, key.with_suffix(".pub"))
    (dist / "tiny.onnx.fp32" / "model.bin").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"model\.bin: expected 40000 bytes"):
        publish(dist, key)
    assert not (tmp_path / "dist.site" / "index.signed").exists()


def test_refused_bundles_are_left_out(dist: Path, tmp_path: Path) -> None:
    refused = Path(shutil.copytree(dist / "tiny.onnx.fp32", dist / "tiny.onnx.fp16.refused"))
    (refused / "refused.json").write_text('{"problems": ["too wrong"]}')
    seal(refused, manifest())
    made = publish(dist, tmp_path / "release.pem")
    assert made.left_out == ("tiny.onnx.fp16.refused",)
    assert list(made.first_bytes) == ["tiny.onnx.fp32"]


def test_the_commands(dist: Path, address: str, tmp_path: Path) -> None:
    runner, key = CliRunner(), tmp_path / "release.pem"
    made = runner.invoke(app, ["publish", str(dist), "--key", str(key), "--days", "7", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["number"] == 1
    lines = runner.invoke(app, ["publish", str(dist), "--key", str(key)]).stdout.splitlines()
    assert lines[1].endswith(" bytes to download, 0 from the index before")

    command = ["fetch", f"{address}/tiny.onnx.fp32", "--require-signature", str(key.with_suffix(".pub"))]
    found = runner.invoke(runtime_app, command)
    assert found.exit_code == 0, found.output
    folder = Path(found.stdout.strip())
    assert (folder / "model.bin").read_bytes() == WEIGHTS.tobytes()
    shutil.copy(f"{dist}.site/indexes/1.signed", f"{dist}.site/index.signed")  # a rollback
    found = runner.invoke(runtime_app, [*command, "--json"])
    assert found.exit_code == 1
    printed = json.loads(found.stdout[found.stdout.index("{") :])
    assert (printed["folder"], printed["refused"]) == (str(folder), True)


def test_an_empty_file_is_the_base_of_compressed_ones(dist: Path, tmp_path: Path) -> None:
    retrain(dist, np.zeros_like(WEIGHTS))
    made = publish(dist, tmp_path / "release.pem")
    index = parse_index((made.site / "index.signed").read_bytes()[148:])
    assert index.bundles["tiny.onnx.fp32"].files["model.bin"].deltas[0].base == EMPTY
    assert made.first_bytes["tiny.onnx.fp32"] < 10_000 < WEIGHTS.nbytes

"""Benchmarks behind a real local sshd: the result comes back, nothing stays there, and errors say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeformer.bench import ssh as ssh_module
from edgeformer.bench.command import BenchOptions, Request, bench, open_host
from edgeformer.bench.output import write_outputs
from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.report import to_json
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from tests.edgeformer.bench.local_sshd import LocalSshd, NoServer, NotInstalled, local_sshd
from tests.runtime.tiny_bundle import make_onnx, make_without_model

pytestmark = pytest.mark.slow
RUNTIME = str(Path(sys.executable).with_name("edgeformer-runtime"))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSshd]:
    try:
        with local_sshd(tmp_path_factory.mktemp("sshd")) as server:
            yield server
    except NotInstalled as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
    except NoServer as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def client(sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's ssh knows the server and its key."""
    monkeypatch.setenv("PATH", f"{sshd.bin}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    return make_onnx(tmp_path_factory.mktemp("bundles") / "tiny.onnx.fp32")


def test_a_report_comes_back(sshd: LocalSshd, bundle: Path) -> None:
    steps: list[str] = []
    sweep = Sweep(threads=(1, 2), batches=(2,), programs=("seq_8",))
    report = open_host(sshd.url, RUNTIME).measure(Request((bundle, bundle), sweep, 6), steps.append)
    assert report.on == sshd.url and report.rounds == 6
    assert [(row.name, row.program, row.batch, row.threads) for row in report.rows] == [
        ("tiny.onnx.fp32", "seq_8", 2, threads) for threads in (1, 1, 2, 2)
    ]
    assert all(row.latency_ms.median > 0 and row.latency_ms.median_interval for row in report.rows)
    assert report.device.cores >= 1 and "onnxruntime" in report.versions
    assert steps == [f"{sshd.url}: {step}" for step in ("connecting", "sending bundles", "measuring")]
    assert not list(sshd.home.iterdir())
    json.dumps(to_json([report]), allow_nan=False)


def test_several_machines_give_one_result(sshd: LocalSshd, bundle: Path, tmp_path: Path) -> None:
    options = BenchOptions(Request((bundle,), Sweep(), 6), ("local", sshd.url), remote_runtime=RUNTIME)
    here, there = bench(options, lambda _: None)
    assert (here.on, there.on) == ("local", sshd.url)
    assert here.rows[0].bundle_sha256 == there.rows[0].bundle_sha256
    # The graph is looked into here, whoever measured.
    assert here.rows[0].arena_mb == there.rows[0].arena_mb and here.rows[0].arena_mb
    write_outputs([here, there], tmp_path / "bench.png", tmp_path / "bench.html")
    assert sshd.url in (tmp_path / "bench.html").read_text()


def test_the_runtime_is_installed_for_the_measurement(sshd: LocalSshd, bundle: Path) -> None:
    report = open_host(sshd.url).measure(Request((bundle,), Sweep(), 1), lambda _: None)
    assert report.versions["edgeformer-runtime"] and "torch" not in report.versions
    assert report.rows[0].engine == "onnx"
    assert not [path for path in sshd.home.iterdir() if path.name.startswith(".edgeformer")]


def test_a_bundle_that_fails_there(sshd: LocalSshd, tmp_path: Path) -> None:
    broken = make_without_model(tmp_path / "broken")
    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*broken.*model\.bin: the model has a field of number 0"):
        open_host(sshd.url, RUNTIME).measure(Request((broken,), Sweep(), 1), lambda _: None)
    assert not list(sshd.home.iterdir())


def test_what_comes_back_is_checked(sshd: LocalSshd, bundle: Path, tmp_path: Path) -> None:
    for answer, problem in (
        ("hello", "not JSON"),
        ('Welcome\n{"format_version": 2, "reports": []}', "format_version|reports"),
    ):
        script = tmp_path / "runtime"
        script.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
        script.chmod(0o755)
        with pytest.raises(BundleError, match=problem):
            open_host(sshd.url, str(script)).measure(Request((bundle,), Sweep(), 1), lambda _: None)
    with pytest.raises(InputError, match="no command /nowhere there"):
        open_host(sshd.url, "/nowhere").measure(Request((bundle,), Sweep(), 1), lambda _: None)
    assert not list(sshd.home.iterdir())


def test_too_little_space(sshd: LocalSshd, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "INSTALL_BYTES", 1 << 60)
    with pytest.raises(InputError, match="MiB are needed in the home folder"):
        open_host(sshd.url).measure(Request((bundle,), Sweep(), 1), lambda _: None)
    assert not list(sshd.home.iterdir())


def test_no_python(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "sshd").mkdir()
    with local_sshd(tmp_path / "sshd", path=str(empty)) as server:
        monkeypatch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(InputError, match=r"no python3 there: install Python 3\.10 or newer"):
            open_host(server.url).measure(Request((bundle,), Sweep(), 1), lambda _: None)


def test_an_old_python(sshd: LocalSshd, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "OLDEST_PYTHON", (4, 0))
    with pytest.raises(InputError, match=r"expected Python 4\.0 or newer there, found 3\."):
        open_host(sshd.url).measure(Request((bundle,), Sweep(), 1), lambda _: None)


def test_a_machine_that_cannot_be_reached(sshd: LocalSshd, bundle: Path, tmp_path: Path) -> None:
    def problem(url: str) -> str:
        with pytest.raises(InputError) as caught:
            open_host(url).measure(Request((bundle,), Sweep(), 1), lambda _: None)
        return str(caught.value)

    assert "Connection refused" in problem("ssh://127.0.0.1:1")
    assert "takes none of your keys" in problem(f"ssh://nobody@127.0.0.1:{sshd.port}")
    known = sshd.folder / "known_hosts"
    text = known.read_text()
    try:
        known.write_text("")
        assert "its host key is not known here" in problem(sshd.url)
        other = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        known.write_text(f"[127.0.0.1]:{sshd.port} {other.with_suffix('.pub').read_text()}")
        assert "its host key" in problem(sshd.url)
    finally:
        known.write_text(text)
    assert not list(sshd.home.iterdir())

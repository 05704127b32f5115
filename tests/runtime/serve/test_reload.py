"""SIGHUP changes to the bundle that lies at the service's path now, without a lost request, or says why not."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from process import odd, serving
from raw_client import ask, get, metric, wait_for

pytestmark = pytest.mark.slow


def reloads(port: int, outcome: str) -> float:
    return metric(port, f'edgeformer_reloads_total{{outcome="{outcome}"}}')


def renamed_bundle(source: Path, target: Path) -> Path:
    """A copy of a bundle under another name, which its answers do not show but `/v1/bundle` does."""
    shutil.copytree(source, target)
    manifest = target / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "newer"'))
    return target


def test_a_bundle_is_exchanged_under_load(tiny_onnx: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_onnx, place)
    newer = renamed_bundle(tiny_onnx, tmp_path / "newer")
    statuses: list[int] = []
    is_over = threading.Event()
    with serving(place) as served:
        expected = ask(served.port, "hello").json()["scores"]

        def keep_asking() -> None:
            while not is_over.is_set():
                answer = ask(served.port, "hello")
                statuses.append(answer.status)
                assert answer.json()["scores"] == expected

        asking = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in asking:
            thread.start()
        for count in range(1, 4):
            place.rename(tmp_path / f"old{count}")
            shutil.copytree(newer if count % 2 else tiny_onnx, tmp_path / "next")
            (tmp_path / "next").rename(place)
            served.process.send_signal(signal.SIGHUP)
            wait_for(lambda count=count: reloads(served.port, "done") == count)  # type: ignore[misc]
            name = get(served.port, "/v1/bundle").json()["name"]
            assert name == ("newer" if count % 2 else "tiny")
        is_over.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}
        assert f'edgeformer_bundle{{name="{name}"' in get(served.port, "/metrics").body.decode()
        assert served.end() == 0


@pytest.mark.parametrize("kind", ["corrupted", "gone", "another task", "wrong answers"])
def test_a_bundle_that_cannot_be_used_changes_nothing(
    kind: str, tiny_onnx: Path, tiny_image_onnx: Path, tmp_path: Path
) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_onnx, place)
    with serving(place) as served:
        expected = ask(served.port, "hello").json()["scores"]
        place.rename(tmp_path / "old")
        if kind == "corrupted":
            shutil.copytree(tiny_onnx, place)
            os.truncate(place / "tokenizer.json", 10)
        elif kind == "another task":
            shutil.copytree(tiny_image_onnx, place)
        elif kind == "wrong answers":
            shutil.copytree(tiny_onnx, place)
            exchange_labels(place)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloads(served.port, "refused") == 1)
        assert ask(served.port, "hello").json()["scores"] == expected
        assert get(served.port, "/health/ready").status == 200
        assert served.end() == 0
        assert "the bundle was not reloaded, the old one goes on: " in served.log()


def exchange_labels(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_text()
    changed = text.replace('"lights"', '"?"').replace('"weather"', '"lights"').replace('"?"', '"weather"')
    assert changed != text
    manifest.write_text(changed)


def test_a_dead_worker_does_not_open_another_bundle(tiny_onnx: Path, tmp_path: Path) -> None:
    """Answers must not depend on which worker gives them: an exchanged bundle waits for SIGHUP."""
    place = tmp_path / "bundle"
    shutil.copytree(tiny_onnx, place)
    with odd(place, workers=2, finish_s=3.0) as served:
        place.rename(tmp_path / "old")
        renamed_bundle(tiny_onnx, place)
        assert ask(served.port, "panic").status == 500
        assert ask(served.port, "hello").status == 200
        assert metric(served.port, "edgeformer_workers") == 1
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: metric(served.port, "edgeformer_workers") == 2)
        assert get(served.port, "/v1/bundle").json()["name"] == "newer"
        assert served.end() == 0
        assert "another bundle lies at the path now: send SIGHUP" in served.log()

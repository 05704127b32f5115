"""The service gives what the pipeline gives, for every task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from served import Connect, open_noise
from tiny_bundle import TinyEngine
from tiny_image_bundle import TinyPlacesEngine, make_places
from tiny_speech_bundle import RATE

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.pipelines import open_pipeline
from tests.golden import tiny_manifests as tiny


def test_texts(connect: Connect, tiny_onnx: Path) -> None:
    client = connect(tiny_onnx)
    bodies = [
        {"text": "hello"},
        {"text": ""},
        {"text": "hello", "pair": "turn the lights on"},
        {"token_ids": [2, 9, 3]},
    ]
    with load(tiny_onnx) as pipeline:
        expected = [pipeline.run(raw) for raw in ("hello", "", ("hello", "turn the lights on"), [2, 9, 3])]
    answers = [client.post("/v1/answer", json=body).json() for body in bodies]
    for answer, result in zip(answers, expected, strict=True):
        assert answer["labels"] == list(result.labels)
        assert answer["scores"] == list(result.scores)
        assert answer["answered_by"] == "device"
        assert answer["confidence"] == result.score
        assert answer["truncated"] is False
        assert answer["statistics"]["run_ms"] > 0
    together = client.post("/v1/answer", json={"inputs": bodies}).json()["answers"]
    assert [answer["scores"] for answer in together] == [answer["scores"] for answer in answers]


def test_top_and_truncated(connect: Connect, tiny_onnx: Path) -> None:
    client = connect(tiny_onnx)
    answer = client.post("/v1/answer?top=1", json={"text": "hello " * 40}).json()
    assert len(answer["labels"]) == len(answer["scores"]) == 1
    assert answer["truncated"] is True
    assert "edgeformer_truncated_inputs_total 1.0" in client.get("/metrics").text


def test_embedding(connect: Connect, tiny_embedder: Path) -> None:
    bundle = Bundle.open(tiny_embedder)
    pipeline = open_pipeline(bundle, TinyEngine(embeds=True), owned=True)
    expected = pipeline.run("hello").vector
    answer = connect([pipeline]).post("/v1/answer", json={"text": "hello"}).json()
    np.testing.assert_array_equal(np.float32(answer["embedding"]), expected)
    assert "confidence" not in answer


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream"])
def test_image(connect: Connect, tiny_image_onnx: Path, content_type: str) -> None:
    photo = (tiny_image_onnx / "vectors" / "ramp.png").read_bytes()
    with load(tiny_image_onnx) as pipeline:
        expected = pipeline.run(photo)
    answer = connect(tiny_image_onnx).post("/v1/answer", content=photo, headers={"Content-Type": content_type}).json()
    assert (answer["labels"], answer["scores"]) == (list(expected.labels), list(expected.scores))


class Labels:
    """A classifier whose logits are the same for every input."""

    name = executed_by = "numpy"
    not_covered = None

    def run(self, _: str, __: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.array([[1.0, 3.0, 2.0]], np.float32)}

    def close(self) -> None:
        pass


def test_recording(connect: Connect, tiny_speech: Path) -> None:
    audio = (tiny_speech / "vectors" / "audio.wav").read_bytes()
    pipeline = open_pipeline(Bundle(tiny_speech, tiny.recording(), SignatureState(False, None)), Labels())
    expected = pipeline.run(audio)
    client = connect([pipeline])
    answer = client.post("/v1/answer?top=2", content=audio, headers={"Content-Type": "audio/wav"}).json()
    assert (answer["labels"], answer["scores"]) == (["weather", "greeting"], list(expected.scores[:2]))
    assert answer["truncated"] is True and answer["confidence"] == expected.score
    assert client.get("/v1/bundle").json()["input"] == "recording"
    assert client.post("/v1/answer", content=audio, headers={"Content-Type": "image/png"}).status_code == 415


def test_places_in_an_image(connect: Connect, tmp_path: Path) -> None:
    for task, asked, key in (
        ("object-detection", "?threshold=0&top=1", "objects"),
        ("image-segmentation", "?top=1", "segments"),
    ):
        folder = make_places(tmp_path / task, task)
        photo = (folder / "vectors" / "ramp.png").read_bytes()
        pipeline = load(folder, engine=TinyPlacesEngine())
        expected = pipeline(photo, **({"threshold": 0} if key == "objects" else {})).top(1).to_json()
        client = connect([pipeline])
        answer = client.post(f"/v1/answer{asked}", content=photo, headers={"Content-Type": "image/png"}).json()
        assert answer[key] == expected[key] and len(answer[key]) == 1
        refused = client.post("/v1/answer?top=0", content=photo, headers={"Content-Type": "image/png"})
        assert refused.status_code == 422


def test_audio(connect: Connect, tiny_speech: Path) -> None:
    audio = (tiny_speech / "vectors" / "audio.wav").read_bytes()
    pipeline = open_noise(tiny_speech)
    expected = pipeline.run(audio)
    assert expected.text
    client = connect([pipeline])
    answer = client.post("/v1/answer", content=audio, headers={"Content-Type": "audio/wav"}).json()
    assert answer["text"] == expected.text
    assert answer["duration"] == 1.0
    assert answer["segments"] == expected.to_json()["segments"]
    assert 0 < answer["confidence"] <= 1
    refused = client.post("/v1/answer?task=sing", content=audio, headers={"Content-Type": "audio/wav"})
    assert (refused.status_code, "unknown task" in refused.json()["error"]) == (422, True)


def test_stream(connect: Connect, tiny_speech: Path) -> None:
    pipeline = open_noise(tiny_speech)
    samples = (np.sin(np.arange(3 * RATE) * 0.3) * 8000).astype("<i2")
    expected = pipeline.open_stream()
    expected_updates = [
        update for start in range(0, len(samples), 1000) for update in expected.feed(samples[start : start + 1000])
    ]
    expected_updates += expected.finish()
    client = connect([pipeline])
    updates = []
    with client.websocket_connect("ws://127.0.0.1/v1/stream") as socket:
        for start in range(0, len(samples), 1000):
            socket.send_bytes(samples[start : start + 1000].tobytes())
        socket.send_text("end")
        while "done" not in (message := socket.receive_json()):
            updates.append(message)
    assert updates
    assert [update["partial"] for update in updates] == [update.partial for update in expected_updates]
    assert message == {"done": True, "text": expected.transcript().text, "language": "en", "duration": 3.0}
    assert "edgeformer_streams 0.0" in client.get("/metrics").text


def test_bundle_health_metrics_and_documentation(connect: Connect, tiny_onnx: Path, tiny_speech: Path) -> None:
    client = connect(tiny_onnx, max_inputs=7)
    bundle = client.get("/v1/bundle").json()
    assert (bundle["name"], bundle["task"], bundle["input"]) == ("tiny", "text-classification", "text")
    assert (bundle["labels"], bundle["max_inputs"]) == (["lights", "weather", "greeting"], 7)
    assert client.get("/health").json() == {"status": "ready", "unanswered": 0}
    client.post("/v1/answer", json={"text": "hello"})
    client.post("/v1/answer", json={"text": 1})
    metrics = client.get("/metrics").text
    for line in (
        'edgeformer_requests_total{status="200"} 1.0',
        'edgeformer_requests_total{status="422"} 1.0',
        "edgeformer_request_seconds_count 2.0",
        "edgeformer_held_bytes 0.0",
        'edgeformer_bundle{name="tiny",precision="fp32",target="onnx",task="text-classification"} 1.0',
    ):
        assert line in metrics.splitlines()
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/answer"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(post["responses"])
    assert "application/json" in post["requestBody"]["content"]
    assert client.get("/docs").status_code == 404  # FastAPI's would load scripts from elsewhere
    speech = connect([open_noise(tiny_speech)])
    assert speech.get("/v1/bundle").json()["sample_rate"] == RATE
    names = {
        option["name"] for option in speech.get("/openapi.json").json()["paths"]["/v1/answer"]["post"]["parameters"]
    }
    assert names == {"language", "task", "beam_size", "timestamps", "words", "vad", "prompt"}


def test_page_is_one_file_that_may_load_nothing(connect: Connect, tiny_onnx: Path) -> None:
    response = connect(tiny_onnx).get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for reference in ("src=", "@import", "url(", "//cdn"):
        assert reference not in response.text

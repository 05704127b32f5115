"""From times to rows, tables and a picture; and the processes of contenders, with one that only pretends."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import speech_results
from benchmarks.speech_clips import Audio, read_manifest, sample_recordings
from benchmarks.speech_measure import measure
from benchmarks.speech_results import Clip, Run, Times
from benchmarks.whisper_peers import results_of
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.errors import EngineError

CLIPS = (Clip("short.wav", 2.0), Clip("jfk.wav", 11.0))


def contender(name: str, arguments: dict[str, object] | None = None) -> Contender:
    factory = "tests.benchmarks.pretended_speech:parrot"
    return Contender(name, name, "int8", factory, arguments or {}, 3_000_000)


def times(name: str, rounds: tuple[tuple[float, float], ...], few: tuple[float, ...]) -> Times:
    """Of processor seconds per round and clip; the wall clock shows the double."""
    tokens = (10, 24)
    return Times(
        contender=contender(name),
        rounds=tuple(tuple(Run(2 * cpu, cpu, n) for cpu, n in zip(cpus, tokens, strict=True)) for cpus in rounds),
        pairs=tuple(
            (Run(2 * cpus[1], cpus[1], 24), Run(2 * cut, cut, 4)) for cpus, cut in zip(rounds, few, strict=True)
        ),
        load_ms=12.0,
        peak_rss_bytes=100 << 20,
        word_errors=3,
    )


def test_rows_are_medians_over_rounds_and_ratios_within_a_round() -> None:
    slow = times("faster-whisper", ((0.4, 1.0), (0.8, 2.0), (0.4, 1.0)), (0.8, 1.8, 0.8))
    fast = times("EdgeFormer litert", ((0.1, 0.5), (0.2, 1.0), (0.1, 0.3)), (0.4, 0.6, 0.2))
    first, second = speech_results.rows((slow, fast), CLIPS, reference_clip=1, reference=0)
    assert (first["reference_clip_ratio"], first["short_clips_ratio"]) == (1, 1)
    assert second["cpu_s"] == [0.1, 0.5] and second["wall_s"] == [0.2, 1.0]
    assert second["reference_clip_ratio"] == 0.5  # of 0.5, 0.5 and 0.3
    assert second["short_clips_ratio"] == 0.25
    assert second["token_ms"] == pytest.approx(5.0)  # of 5, 20 and 5 ms for each of 20 tokens
    assert second["real_time_factor"] == pytest.approx(0.6 / 13, abs=1e-4)
    assert second["tokens"] == [10, 24]


def test_tables_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'edgeformer[peers]'")
    one = times("faster-whisper", ((0.4, 1.0),), (0.8,))
    two = times("EdgeFormer litert", ((0.1, 0.5),), (0.5,))
    results = {
        "model": "tiny", "rounds": 1, "reference": "faster-whisper int8", "reference_clip": 1, "words": 40,
        "clips": [{"file": clip.file, "seconds": clip.seconds} for clip in CLIPS],
        "rows": speech_results.rows((one, two), CLIPS, 1, 0),
    }  # fmt: skip
    assert results["rows"][1]["ratio_interval"] is None  # one round says nothing of others
    line = "| EdgeFormer litert | int8 | 3.0 MB | 100 MiB | 0.500 s | 0.50 | 0.25 | 0.0 ms | 0.046 | 3 of 40 |"
    assert line in speech_results.markdown(results).splitlines()
    assert speech_results.terminal_table(results).row_count == 2
    speech_results.plot(results, tmp_path / "times.png")
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")


def test_every_contender_hears_every_clip() -> None:
    recordings = sample_recordings()[:2]
    measured = measure([contender("one"), contender("two")], recordings, rounds=2, report=print)
    assert [clip.file for clip in measured.clips] == ["speech_sample.flac"] * 2
    assert 2 < measured.clips[0].seconds < 4
    assert measured.words == 8 + 11
    one, two = measured.times
    assert one.word_errors == two.word_errors >= 8  # the first sentence is right, the second is another
    assert len(one.rounds) == 2 and [run.tokens for run in one.rounds[0]] == [8, 8]
    assert [(whole.tokens, cut.tokens) for whole, cut in one.pairs] == [(8, 4)] * 2 * speech_results.PAIRS
    results = results_of(measured, "tiny")
    assert results["reference"] == "one int8" and len(results["rows"]) == 2


def test_a_contender_that_fails_is_named() -> None:
    with pytest.raises(EngineError, match=r"broken: RuntimeError: no audio"):
        measure([contender("broken", {"fail": True})], sample_recordings()[:1], 1, report=print)


def test_a_manifest_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('{"file": "a.wav", "text": "one", "licence": "CC0"}\n\n')
    assert read_manifest(tmp_path / "clips.jsonl") == [Audio(tmp_path / "a.wav", "one")]

"""What the footprint benchmark counts, and the table that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import check, footprint_results
from benchmarks.footprint import REPEATS, Installed, Run, _cold, measure_installed

# By distribution: the bytes of its only file, and what it needs.
PACKAGES: dict[str, tuple[int, tuple[str, ...]]] = {
    "edgeformer_runtime": (10, ("numpy>=1.26", "ai-edge-litert>=2.3", "Tokenizers", "rich; extra == 'cli'")),
    "ai_edge_litert": (5000, ("protobuf", "numpy", "tqdm")),
    "numpy": (7000, ()),
    "protobuf": (300, ()),
    "tokenizers": (20, ("huggingface_hub<3,>=0.16",)),
    "huggingface-hub": (30, ("tqdm>=4",)),
    "tqdm": (4, ()),
    "pip": (900, ()),
}


def environment(folder: Path) -> Path:
    """A folder as pip leaves it; the path of its Python, which is not there."""
    site = folder / "lib" / "python3.11" / "site-packages"
    for name, (size, needs) in PACKAGES.items():
        information = site / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (site / f"{name}.py").write_bytes(bytes(size))
        requires = "".join(f"Requires-Dist: {each}\n" for each in needs)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
        (information / "RECORD").write_text(f"{name}.py,,{size}\n{name}/gone.py,,\n")
    return folder / "bin" / "python"


def test_what_only_the_engine_needs_is_the_engines(tmp_path: Path) -> None:
    found = measure_installed(environment(tmp_path))
    everything = sum(size for name, (size, _) in PACKAGES.items() if name != "pip")
    assert found == Installed(packages=7, bytes=everything, own_bytes=10 + 20 + 30 + 4)


def test_the_table_has_a_row_for_each_contender_and_each_model() -> None:
    cold = {
        "task": "text",
        "precision": "fp32",
        "answer": "lights",
        "first_answer_s": 0.25,
        "load_s": 0.2,
        "loaded_bytes": 50 << 20,
        "peak_bytes": 60 << 20,
        "ratio": 1.25,
        "ratio_interval": [1.1, 1.4],
    }
    text = footprint_results.markdown(
        {
            "machine": "x86_64, Linux",
            "rounds": 3,
            "bare": {"packages": 20, "bytes": 150e6, "own_bytes": 49.96e6},
            "contenders": [{"name": "Ours", "packages": 21, "bytes": 1.6e8, "import_s": 0.0011, "cold": [cold]}],
        }
    )
    assert "brings 20 packages, of whose 150.0 MB 50.0 MB are neither numpy's nor the engine's" in text
    assert "| Ours | 21 | 160.0 MB | 1 ms |" in text
    assert "| MobileBERT | Ours | fp32 | 250 ms | 1.25 (1.10 to 1.40) | 50 MiB | 60 MiB |" in text
    assert "TinyViT" not in text


def test_ratios_are_of_first_answers_and_leave_room_for_another_run() -> None:
    def runs(*seconds: float) -> list[Run]:
        return [(each, "lights", {"load_s": 0.1, "loaded_bytes": 1.0, "peak_bytes": 2.0}) for each in seconds * REPEATS]

    ours, peer = runs(0.2, 9.0, 0.1), runs(0.6, 0.5, 0.4)
    cold = _cold(peer, ours, rounds=3)
    assert (cold.first_answer_s, cold.ratio) == (0.5, pytest.approx(2.5))
    assert cold.ratio_interval == pytest.approx((2.5 / 1.1, 2.5 * 1.1))
    assert _cold(ours, ours, rounds=3).ratio_interval is None


def test_another_run_of_it_is_compared() -> None:
    def results(ratio: float) -> dict[str, Any]:
        cold = {"task": "text", "precision": "fp32", "ratio": ratio, "ratio_interval": [ratio / 1.1, ratio * 1.1]}
        return {"contenders": [{"name": "torch", "cold": [cold]}]}

    (same,), (other,) = check.compare(results(8.0), results(8.5)), check.compare(results(8.0), results(9.0))
    assert (same.model, same.row, same.inside, other.inside) == ("first answer, text", "torch fp32", True, False)

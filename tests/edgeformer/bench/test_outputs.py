"""Pictures and pages of reports, and what the command refuses before it measures."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeformer.bench.command import BenchOptions, Request
from edgeformer.bench.output import check_outputs, label, page, swept, write_outputs
from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.device import Device, Energy, State
from edgeformer_runtime.bench.report import (
    CONFIDENCE,
    Quantiles,
    Report,
    Row,
    from_json,
    medians_table,
    remarks,
    report_table,
    to_json,
)
from edgeformer_runtime.errors import BundleError, InputError

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'edgeformer[peers]'")

ROW = Row(
    name="m.litert.fp32",
    engine="litert",
    precision="fp32",
    program="seq_32",
    threads=1,
    batch=1,
    size_bytes=4_000_000,
    bundle_sha256="0" * 64,
    latency_ms=Quantiles(10.0, 11.5, 60, (9.8, 10.3), (11.0, 12.0)),
    cpu_ms=Quantiles(9.9, 11.0, 60, (9.7, 10.1), (10.9, 11.2)),
    load_ms=5.0,
    peak_rss_mb=50.0,
    private_mb=20.25,
    arena_mb=1.5,
    energy=Energy("RAPL package-0", 0.125, 15.0, 5.0),
    ratio_to_first=1.0,
    ratio_interval=None,
)
PEER = replace(
    ROW, name="torch", engine="torch", bundle_sha256=None, latency_ms=Quantiles(20.0, 22.0, 60, None, None),
    ratio_to_first=2.0, ratio_interval=(1.9, 2.1), energy=None, arena_mb=None,
)  # fmt: skip
REPORT = Report(
    on="local",
    device=Device("Raspberry Pi 5", "Cortex-A76", "aarch64", 4, 8 << 30, "Linux 6.6", "ondemand"),
    versions={"python": "3.11.2", "numpy": "2.4.6"},
    before=State({"cpu-thermal 0": 48.3}, (1500.0, 2400.0), 0.1, ()),
    after=State({"cpu-thermal 0": 71.2}, (2400.0, 2400.0), 1.1, ("throttled",)),
    rounds=30,
    confidence=CONFIDENCE,
    rows=(ROW, PEER),
    notes=("the board holds its clock down: throttled",),
)
THREADS = replace(REPORT, on="ssh://pi@pi", rows=(ROW, replace(ROW, threads=2, latency_ms=PEER.latency_ms)))


def test_the_table() -> None:
    table = report_table(REPORT)
    headers = [str(column.header).replace("\n", ", ") for column in table.columns]
    assert headers[:3] == ["", "median, ms", "interval"] and not {"threads", "program"} & set(headers)
    cells = dict(zip(headers, (list(column.cells) for column in table.columns), strict=True))
    assert cells[""] == ["m.litert.fp32", "torch fp32"]
    assert cells["median, ms"] == ["10.00", "20.00"] and cells["mJ"] == ["125.0", ""]
    assert [list(column.cells) for column in table.columns if column.header == "interval"] == [
        ["9.80-10.30", ""],
        ["", "1.90-2.10"],
    ]
    assert list(remarks(REPORT)) == [
        "the board holds its clock down: throttled",
        "before: 48.3 °C, 2400 MHz; after: 71.2 °C, 2400 MHz, throttled",
    ]
    assert "threads" in [column.header for column in report_table(THREADS).columns]


def test_the_table_fits_a_terminal() -> None:
    """The longest lines, of speech and of several conditions, stand in 160 columns without a cut cell."""
    slow = replace(
        ROW,
        name="whisper-tiny.en.litert.dynamic-int8",
        precision="dynamic-int8",
        program="encode_750",
        threads=4,
        batch=16,
        latency_ms=Quantiles(2302.4, 2990.1, 60, (1955.2, 2894.3), (2800.0, 3100.0)),
        ratio_to_first=12.5,
        ratio_interval=(11.25, 13.75),
    )
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report_table(replace(REPORT, rows=(ROW, slow))))
    text = console.export_text()
    assert "1955-2894" in text and "11.25-13.75" in text and "encode_750" in text and "…" not in text


def test_machines_side_by_side() -> None:
    table = medians_table([REPORT, THREADS])
    assert [column.header for column in table.columns] == ["", "threads", "local", "ssh://pi@pi"]
    assert list(table.columns[2].cells) == ["10.00", "20.00", ""]
    assert list(table.columns[3].cells) == ["10.00", "", "20.00"]


def test_what_a_picture_shows() -> None:
    assert swept(REPORT) is None and swept(THREADS) == "threads"
    programs = replace(THREADS, rows=(*THREADS.rows, replace(ROW, program="seq_64")))
    assert swept(programs) is None
    assert label(PEER, REPORT) == "torch, fp32" and label(ROW, REPORT) == "m.litert.fp32"
    assert label(ROW, programs) == "m.litert.fp32, seq_32, threads 1"


def test_pictures_and_pages(tmp_path: Path) -> None:
    picture, html = tmp_path / "bench.png", tmp_path / "bench.html"
    picture.write_text("old")
    write_outputs([REPORT, THREADS], picture, html)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = html.read_text()
    assert text.count("<table>") == 3 and text.count("<svg") == 2
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in text and "currentColor" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.html", "bench.png"]


def test_what_a_machine_says_is_no_markup() -> None:
    hostile = replace(REPORT, on="<script>", notes=("<img src=x>",), rows=(replace(ROW, name="<b>"),))
    text = page([hostile])
    assert "<script>" not in text and "<img src=x>" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text and "&lt;b&gt;" in text


def test_json_comes_back() -> None:
    assert from_json(to_json([REPORT, THREADS]), "it") == [REPORT, THREADS]
    for path, value, problem in (
        ("ratio_to_first", 0, "exclusiveMinimum"),
        ("threads", 1.0, "threads: expected int"),
        ("engine", None, "engine: expected string"),
        ("bundle_sha256", "../x", "expected text like"),
    ):
        wrong = to_json([REPORT])
        wrong["reports"][0]["rows"][0][path] = value
        with pytest.raises(BundleError, match=problem):
            from_json(wrong, "it")


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    check_outputs(tmp_path / "a.png", tmp_path / "a.html")
    with pytest.raises(InputError, match=r"ends in \.png or \.svg"):
        check_outputs(tmp_path / "a.gif", None)
    with pytest.raises(InputError, match="no folder"):
        check_outputs(None, tmp_path / "nowhere" / "a.html")


def test_options_that_cannot_be() -> None:
    request = Request((Path("bundle"),), Sweep(), 30)
    with pytest.raises(InputError, match="unknown peer 'tvm': expected one of onnxruntime, openvino, torch, ncnn"):
        BenchOptions(request, against=("tvm",))
    with pytest.raises(InputError, match="peers run on this machine alone"):
        BenchOptions(request, on=("ssh://pi@pi",), against=("torch",))
    with pytest.raises(InputError, match="--remote-runtime with --on ssh:// alone"):
        BenchOptions(request, on=("local", "adb://SERIAL"), remote_runtime="edgeformer-runtime")
    with pytest.raises(InputError, match="each --on once"):
        BenchOptions(request, on=("local", "local"))

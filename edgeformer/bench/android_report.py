"""The report of the demo app's Bench screen, as a report like all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.bench.device import Device, State
from edgeformer_runtime.bench.estimates import CONFIDENCE, Quantiles
from edgeformer_runtime.bench.report import Report, Row, from_json, to_json
from edgeformer_runtime.errors import BundleError, EngineError

APP = "org.edgeformer.demo"

NOTE = "measured by the app, one bundle after the other: no intervals, and a phone that gets warm gets slow"


@dataclass(frozen=True)
class Phone:
    """What a phone says of itself; empty texts where it says nothing."""

    manufacturer: str
    model: str
    soc: str
    release: str
    api: str
    abi: str
    cores: int
    app_version: str | None


def read_report(
    raw: Any, on: str, phone: Phone, states: tuple[State, State], shown: dict[str, str], digests: dict[str, str]
) -> Report:
    """The app's JSON (BenchReport.kt) as a report.

    Args:
        raw: parsed JSON.
        on: the machine, as it was asked for.
        phone: what it is.
        states: before and after.
        shown: the bundle's own name for each name that the app knows; the first is what ratios refer to.
        digests: of the bundles, by the names that the app knows.

    Raises:
        BundleError: the JSON is not what the app writes.
        EngineError: the app could not measure a bundle.
    """
    where = f"what {on} sent"
    try:
        found = {row["name"]: row for row in raw["bundles"]}
        failed = next((row for row in found.values() if "error" in row), None)
        if failed is not None:
            raise EngineError(f"{on}: {shown.get(failed['name'], failed['name'])}: {failed['error']}")
        chosen = {name: found[name] for name in shown}
        first = next(iter(chosen.values()))["latency_ms"]["median"]
        rows = tuple(_row(row, shown[name], digests[name], first) for name, row in chosen.items())
        engines = [str(row["executed_by"]).rpartition(" ") for row in chosen.values()]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise BundleError(f"{where}: not a report of the Bench screen: {error!r}") from None
    versions = {engine: version for engine, _, version in engines}
    if phone.app_version is not None:
        versions[APP] = phone.app_version
    report = Report(on, _device(phone), versions, *states, 0, CONFIDENCE, rows, (NOTE,))
    return from_json(to_json([report]), where)[0]  # the app's values are checked like everybody's


def _device(phone: Phone) -> Device:
    return Device(
        model=f"{phone.manufacturer} {phone.model}".strip() or None,
        cpu=phone.soc or None,
        machine=phone.abi,
        cores=phone.cores,
        memory_bytes=None,
        os=f"Android {phone.release}, API {phone.api}",
        governor=None,
    )


def _row(row: dict[str, Any], name: str, digest: str, first_ms: float) -> Row:
    latency = row["latency_ms"]
    return Row(
        name=name,
        engine=row["engine"],
        precision=row["precision"],
        program=row["program"],
        threads=row["threads"],
        batch=1,
        size_bytes=row["size_bytes"],
        bundle_sha256=digest,
        latency_ms=Quantiles(latency["median"], latency["p90"], latency["runs"], None, None),
        cpu_ms=None,
        load_ms=row["load_ms"],
        peak_rss_mb=None,
        private_mb=row["memory_mb"],
        arena_mb=None,
        energy=None,
        ratio_to_first=latency["median"] / first_ms,
        ratio_interval=None,
    )

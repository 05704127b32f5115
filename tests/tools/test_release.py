"""Releases: the same commit gives the same bytes, and what the packages bring is listed with its licence."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import release
from tools.components import PRODUCTS, Component, components, normal
from tools.debian import SetupError
from tools.licences import DUTIES, licences_text
from tools.lock import LOCK, OUTSIDE
from tools.sbom import sbom_text

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1795000000


@pytest.fixture(scope="module")
def found() -> list[Component]:
    return components()


@pytest.mark.slow
def test_wheels_are_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if int(metadata.version("setuptools").partition(".")[0]) < release.OLDEST_SETUPTOOLS:
        pytest.skip("setuptools is older than a release needs: make setup")
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("no git repository")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    first = release.make_release(tmp_path / "first")
    second = release.make_release(tmp_path / "second")
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    with zipfile.ZipFile(first[0]) as wheel:
        assert "edgeformer_runtime/BUNDLE.md" in wheel.namelist()
        assert {member.date_time for member in wheel.infolist()} == {(2026, 11, 18, 11, 6, 40)}


def test_dates_and_modes_do_not_reach_a_wheel(tmp_path: Path) -> None:
    wheels = []
    for name, date, mode in (("a", (1999, 1, 1, 0, 0, 0), 0o600), ("b", (2026, 2, 3, 4, 5, 6), 0o755)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            member = zipfile.ZipInfo("package/file.py", date)
            member.external_attr = mode << 16
            archive.writestr(member, b"x = 1\n")
        wheels.append(release.normalised(tmp_path / name, EPOCH))
    assert wheels[0] == wheels[1]


def test_a_source_date_is_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SetupError, match="expected SOURCE_DATE_EPOCH as seconds since 1970"):
        release.source_date()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert release.source_date() == 315532800, "zips begin in 1980"


def test_what_the_packages_bring(found: list[Component]) -> None:
    by_name = {each.name: each for each in found}
    assert {each.name for each in found if each.ours} == {"edgeformer", "edgeformer-runtime"}
    assert {"numpy", "tokenizers", "torch", "soxr", "cryptography", "coremltools", "uvicorn"} <= set(by_name)
    assert not {"pytest", "mypy", "ruff", "openvino"} & set(by_name), "tools of developers and benchmarks"
    assert by_name["soxr"].licence == "LGPL-2.1-or-later"
    assert "pillow-heif" in by_name
    assert by_name["soxr"].name in by_name["edgeformer-runtime"].needs
    assert all(need in by_name for each in found for need in each.needs)


def test_no_extra_for_users_is_left_out(found: list[Component]) -> None:
    names = {each.name for each in found}
    for product in PRODUCTS:
        given = metadata.distribution(product)
        extras = set(given.metadata.get_all("Provides-Extra") or ()) - {
            "dev",
            "peers",
            "test",
            "lint",
            "bench",
            "phones",
            "release",
        }
        asked = [each for each in map(Requirement, given.requires or ()) if each.marker is not None]
        assert asked
        for each in asked:
            if any(each.marker.evaluate({"extra": extra}) for extra in extras):
                assert normal(each.name) in names


def test_bill_of_materials(found: list[Component]) -> None:
    text = sbom_text(found, EPOCH)
    assert text == sbom_text(found, EPOCH)
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert document["metadata"]["timestamp"] == "2026-11-18T11:06:40Z"
    product = document["metadata"]["component"]
    references = {product["bom-ref"], *(each["bom-ref"] for each in (*product["components"], *document["components"]))}
    assert {each["ref"] for each in document["dependencies"]} == references
    assert {ref for each in document["dependencies"] for ref in each["dependsOn"]} <= references


def test_the_bill_of_materials_follows_its_schema(found: list[Component]) -> None:
    validation = pytest.importorskip(
        "cyclonedx.validation.json", reason="pip install 'cyclonedx-python-lib[json-validation]'"
    )
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    text = sbom_text(found, EPOCH)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"purl"', '"url"')) is not None


def test_licences_name_those_with_duties(found: list[Component]) -> None:
    text = licences_text(found)
    lesser = {each.name for each in found if "GPL" in each.licence}
    assert lesser <= set(DUTIES), "a licence that asks for more than a notice: read its wheel and say so"
    for name in DUTIES:
        assert f"- **{name}** " in text
    assert all(f"| {each.name} | {each.version} |" in text for each in found if not each.ours)


def test_the_lock_names_no_machine_and_hashes_everything() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|/|@", text.partition("\n")[2]), "an address or a path"
    packages = re.split(r"\n(?=[a-z0-9])", text.partition("\n")[2].strip())
    for package in packages:
        assert re.match(r"[a-z0-9][a-z0-9.-]*==[^ ]+( ; [^\\]+)? \\\n +--hash=sha256:[0-9a-f]{64}", package), package[
            :80
        ]
    names = {package.partition("==")[0] for package in packages}
    assert not names & set(OUTSIDE)
    assert {"numpy", "tokenizers", "setuptools", "mypy", "soxr", "cryptography"} <= names

"""The pieces of `make pi` that need no emulator."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec
from tools.code_key import REPOSITORY, code_key
from tools.pi import wheels
from tools.pi.cpu_files import CORES, write_cpu_files
from tools.pi.emulated_pi import EmulatedPi, clean_environment
from tools.pi.emulated_tests import LEFT_OUT, TESTS
from tools.pi.outputs import seeded_inputs


def test_cpu_files_describe_four_cores_of_a_raspberry_pi(tmp_path: Path) -> None:
    write_cpu_files(tmp_path)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count("processor\t") == CORES
    assert text.count("CPU part\t: 0xd0b") == CORES
    cpu = tmp_path / "sys/devices/system/cpu"
    assert (cpu / "possible").read_text() == "0-3\n"
    assert [(cpu / f"cpu3/cache/index{index}/size").read_text() for index in range(4)] == [
        "64K\n", "64K\n", "512K\n", "2048K\n",
    ]  # fmt: skip
    assert (cpu / "cpu3/cache/index2/shared_cpu_list").read_text() == "3\n"
    assert (cpu / "cpu3/cache/index3/shared_cpu_list").read_text() == "0-3\n"


def test_seeded_inputs_are_what_the_program_declares_and_valid_indices() -> None:
    program = ProgramSpec(
        "decode", "m", "decode", (TensorSpec("token", "int32", (1,)), TensorSpec("mask", "float32", (5,))), ()
    )
    inputs = seeded_inputs(program)
    assert {name: (str(each.dtype), each.shape) for name, each in inputs.items()} == {
        "token": ("int32", (1,)), "mask": ("float32", (5,)),
    }  # fmt: skip
    assert set(inputs["token"].tolist()) <= {0, 1}
    assert np.abs(inputs["mask"]).max() <= 1
    np.testing.assert_array_equal(inputs["mask"], seeded_inputs(program)["mask"])


def test_another_dependency_or_version_means_other_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pi = cast(EmulatedPi, SimpleNamespace(site_packages=tmp_path))
    there: dict[str, str] = {"numpy": "2.0"}

    def versions(folder: Path | None = None) -> dict[str, str]:
        return there if folder else {"numpy": "2.0", "torch": "2.13.0"}

    monkeypatch.setattr(wheels, "versions", versions)
    assert not wheels._is_current(pi)
    (tmp_path / wheels.STAMP).write_text(json.dumps(wheels._chosen()))
    assert wheels._is_current(pi)
    there["numpy"] = "2.1"
    assert not wheels._is_current(pi)
    there["numpy"] = "2.0"
    monkeypatch.setattr(wheels, "TEST_PACKAGES", ("pytest",))
    assert not wheels._is_current(pi)


def test_what_is_run_and_left_out_exists() -> None:
    assert all((REPOSITORY / path).exists() for path in (*TESTS, *LEFT_OUT))


def test_extras_of_the_wheel_exist() -> None:
    project: dict[str, Any] = tomllib.loads((wheels.RUNTIME / "pyproject.toml").read_text())["project"]
    assert set(wheels.EXTRAS) <= set(project["optional-dependencies"])


def test_no_variable_leads_to_this_environments_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    assert "/somewhere" not in clean_environment().values()


def test_the_key_changes_with_arguments_and_with_a_file() -> None:
    assert code_key("a", ("tools",)) == code_key("a", ("tools",))
    assert code_key("a", ("tools",)) != code_key("b", ("tools",))
    assert code_key("a", ("tools",)) != code_key("a", ("tools/pi",))
    assert code_key("a", ("tools/ci.py",)) not in (code_key("a", ("tools",)), code_key("a", ()))

"""The ExecuTorch shim: what it is built from, that it needs no torch, which runtime is chosen, and what corrupts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.executorch import _BINDING, CHOICE, ShimRuntime
from edgeformer_runtime.engines.executorch_shim import build as building
from edgeformer_runtime.engines.executorch_shim.build import (
    LIBRARY_NAME,
    RECORD_NAME,
    Build,
    build_shim,
    find_build,
    read_build,
)
from edgeformer_runtime.engines.executorch_shim.package import LIBRARIES, installed_package, read_library
from edgeformer_runtime.errors import EngineError, InputError

pytestmark = [pytest.mark.executorch, pytest.mark.slow]

WITHOUT_TORCH = """
import json, sys
from edgeformer_runtime import load
with load(sys.argv[1]) as pipeline:
    result = pipeline("turn the lights off")
    executed_by = pipeline.engine.executed_by
loaded = [line.split()[-1] for line in open("/proc/self/maps") if ".so" in line]
print(json.dumps([executed_by, result.scores, "torch" in sys.modules, "executorch" in sys.modules, loaded]))
"""


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache without a build, and no runtime asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(CHOICE)
    return tmp_path / "cache" / "edgeformer" / "executorch"


def edit_record(build: Path, folder: Path, **changes: str) -> Path:
    """A copy of a build that says other things of itself."""
    shutil.copytree(build, folder)
    record = json.loads((folder / RECORD_NAME).read_text())
    (folder / RECORD_NAME).write_text(json.dumps(record | changes))
    return folder


def test_a_build_needs_its_own_folder_and_the_systems_libraries(executorch_shim: Path) -> None:
    elftools = pytest.importorskip("elftools.elf.elffile")
    files = sorted(path.name for path in executorch_shim.iterdir())
    assert files == sorted([*LIBRARIES, LIBRARY_NAME, RECORD_NAME])
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libdl.so.2", "libpthread.so.0"}
    for path in executorch_shim.glob("*.so"):
        with path.open("rb") as file:
            elf = elftools.ELFFile(file)
            tags = list(elf.get_section_by_name(".dynamic").iter_tags())
            needed = tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED")
            machine = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}[elf["e_machine"]]
        found = read_library(path)
        assert (found.machine, found.needed) == (machine, needed)
        others = {name for name in needed if not name.startswith("ld-linux")} - system
        assert others <= set(LIBRARIES)
    assert set(LIBRARIES) <= set(read_library(executorch_shim / LIBRARY_NAME).needed)


def test_no_torch_and_the_same_numbers(tiny_executorch: Path, executorch_shim: Path, tmp_path: Path) -> None:
    answers = {}
    for runtime in ("python", str(executorch_shim)):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, str(tiny_executorch)],
            cwd=tmp_path, env=os.environ | {CHOICE: runtime}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        answers[runtime] = json.loads(done.stdout)
    executed_by, scores, torch, executorch, loaded = answers[str(executorch_shim)]
    assert executed_by.endswith("(shim)")
    assert (torch, executorch) == (False, False)
    assert not [path for path in loaded if Path(path).name.startswith(("libtorch", "libc10"))]
    assert answers["python"][0].endswith("(python)")
    assert answers["python"][2] is True
    np.testing.assert_allclose(scores, answers["python"][1], rtol=0, atol=1e-6)


def test_both_runtimes_in_one_process(tiny_executorch: Path, executorch_shim: Path, monkeypatch) -> None:
    inputs = {name: np.ones((1, 8), np.int32) for name in ("input_ids", "attention_mask")}
    with Bundle.open(tiny_executorch) as bundle:
        outputs = []
        for runtime in ("python", str(executorch_shim)) * 2:
            monkeypatch.setenv(CHOICE, runtime)
            engine = open_engine(bundle, threads=1 + len(outputs) % 2)
            outputs.append(engine.run("seq_8", inputs)["output"])
            engine.close()
    for each in outputs[1:]:
        np.testing.assert_allclose(each, outputs[0], rtol=0, atol=1e-6)


def test_a_method_takes_what_the_file_declares(tiny_executorch: Path, executorch_shim: Path) -> None:
    method = ShimRuntime(read_build(executorch_shim)).open(tiny_executorch / "model.pte").load("seq_8")
    ids = np.ones((1, 8), np.int32)
    assert method([ids, ids])[0].shape == (1, 3)
    for given in ([ids], [ids, ids[:, :4]], [ids, ids.astype(np.float32)]):
        with pytest.raises(RuntimeError, match="convert the bundle again"):
            method(given)


def test_corrupted_files_are_errors(tiny_executorch: Path, executorch_shim: Path, tmp_path: Path) -> None:
    """In ExecuTorch's own words, and never the end of the process."""
    good = (tiny_executorch / "model.pte").read_bytes()
    runtime = ShimRuntime(read_build(executorch_shim))
    corrupted = {
        "empty": b"",
        "none": b"no model" * 100,
        "short": good[: len(good) // 2],
        "start": bytes(64) + good[64:],
    }
    for name, content in corrupted.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RuntimeError, match=r"^Error::"):
            runtime.open(tmp_path / name)
    with pytest.raises(RuntimeError, match="AccessFailed"):
        runtime.open(tmp_path / "nowhere")
    # Kernels and delegates that this ExecuTorch lacks.
    for name in (b"XnnpackBackend", b"aten::sum"):
        assert name in good
        (tmp_path / "other").unlink(missing_ok=True)
        (tmp_path / "other").write_bytes(good.replace(name, name[:-1] + b"?"))
        file = runtime.open(tmp_path / "other")
        with pytest.raises(RuntimeError, match=name.decode()[:-1]):
            file.load("seq_8")


def test_where_executorch_would_end_the_process(tiny_executorch: Path, executorch_shim: Path, tmp_path: Path) -> None:
    """A kernel that is called with an integer for a tensor fails an assertion, which is to abort."""
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    corrupted = deserialize_pte_binary((tiny_executorch / "model.pte").read_bytes())
    for plan in corrupted.program.execution_plan:
        integer = next(index for index, value in enumerate(plan.values) if type(value.val).__name__ == "Int")
        plan.chains[0].instructions[0].instr_args.args[0] = integer
    (tmp_path / "model.pte").write_bytes(bytes(serialize_pte_binary(corrupted, extract_delegate_segments=True)))
    ids = np.ones((1, 8), np.int32)
    runtime = ShimRuntime(read_build(executorch_shim))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"assert failed \(isTensor\(\)\): .*ExecuTorch gave up$"):
            runtime.open(tmp_path / "model.pte").load("seq_8")([ids, ids])
    assert np.isfinite(runtime.open(tiny_executorch / "model.pte").load("seq_8")([ids, ids])[0]).all()


def wheel_of_installed(path: Path, name: str = "executorch", version: str | None = None) -> Path:
    """A wheel with what the shim needs of the installed package."""
    package = installed_package()
    assert package is not None
    version = version or package.version
    with zipfile.ZipFile(path, "w") as archive:
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: of no wheel\n"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", text)
        archive.writestr("executorch/version.py", "not needed")
        for file in (*package.root.joinpath("include").rglob("*.h"), *package.libraries):
            archive.write(file, Path("executorch") / file.relative_to(package.root))
    return path


def test_a_wheel_file_gives_the_same_build(executorch_shim: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    wheel = wheel_of_installed(tmp_path / "executorch.whl")
    build = build_shim(wheel, tmp_path / "build", lambda finished, total: told.append((finished, total)))
    assert build.record == read_build(executorch_shim).record
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "executorch.whl"]


def test_a_wheel_that_is_unpacked_is_taken_as_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel_of_installed(tmp_path / "executorch.whl")) as archive:
        archive.extractall(tmp_path / "unpacked")
    installed = installed_package()
    assert installed is not None
    found = installed_package(tmp_path / "unpacked")
    assert found == replace(installed, root=tmp_path / "unpacked" / "executorch")
    assert found.machine == installed.machine
    (tmp_path / "empty").mkdir()
    assert installed_package(tmp_path / "empty") is None
    with pytest.raises(InputError, match="expected a folder with executorch's wheel unpacked, found none in it"):
        build_shim(tmp_path / "empty", tmp_path / "build")


def test_wheels_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no wheel")
    other = wheel_of_installed(tmp_path / "other.whl", name="tokenizers")
    old = wheel_of_installed(tmp_path / "old.whl", version="1.4.0")
    with zipfile.ZipFile(tmp_path / "pure.whl", "w") as archive:
        archive.writestr("executorch-1.5.1.dist-info/METADATA", "Name: executorch\nVersion: 1.5.1\n")
    for wheel, kind, problem in (
        (tmp_path / "text", InputError, "expected a wheel of executorch"),
        (tmp_path / "nowhere", InputError, "expected a wheel of executorch"),
        (other, InputError, "expected a wheel of executorch, found tokenizers"),
        (old, EngineError, r"expected executorch>=1.5,<1.6, found 1.4.0"),
        (tmp_path / "pure.whl", EngineError, "no lib/libexecutorch.so: expected executorch's wheel for Linux"),
    ):
        with pytest.raises(kind, match=problem):
            build_shim(wheel, tmp_path / "build")
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (None, "no C\\+\\+ compiler found: sudo apt-get install g\\+\\+ "),
        ("case $1 in -*) echo other-linux-gnu;; esac", "executorch's libraries are for .*, .* makes code for other: "),
        (
            f"case $1 in -dumpmachine) echo {os.uname().machine}-;; --version) echo 1;; *) echo oh >&2; exit 1;; esac",
            "failed: oh",
        ),
    ],
)
def test_compilers_that_do_not_do(
    script: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        compiler = tmp_path / "c++"
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(EngineError, match=problem):
        build_shim(out=tmp_path / "build")
    assert not (tmp_path / "build").exists()
    assert not list(tmp_path.glob(".building-*"))


def test_a_library_that_needs_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = installed_package()
    assert package is not None
    binding = next((package.root / "extension" / "pybindings").glob("_C*.so"))

    def copy_binding(_package: object, folder: Path) -> None:
        shutil.copy(binding, folder / "libexecutorch.so")

    monkeypatch.setattr(building, "copy_libraries", copy_binding)
    monkeypatch.setattr(building, "compile_shim", lambda *_: None)
    with pytest.raises(EngineError, match=r"libexecutorch.so needs libtorch_python.so, .*cannot run without torch"):
        build_shim(out=tmp_path / "build")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a new folder, this one exists"):
        build_shim(out=tmp_path)


def test_the_users_cache(executorch_shim: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_build() is None
    record = read_build(executorch_shim).record
    built = build_shim()
    assert built.folder == empty_cache / record.folder_name
    assert find_build() == Build(built.folder, record)
    monkeypatch.setattr(building, "compile_shim", lambda *_: pytest.fail("compiled again"))
    assert build_shim() == built

    edit_record(built.folder, empty_cache / "foreign", machine="riscv64")
    edit_record(built.folder, empty_cache / "old", source_sha256="0" * 64)
    assert find_build() == built
    newer = edit_record(built.folder, empty_cache / "newer", compiler="another")
    os.utime(newer / RECORD_NAME, ns=(1 << 62, 1 << 62))
    assert find_build() == Build(newer, replace(record, compiler="another"))


def test_the_shim_is_chosen_where_it_is_built(
    tiny_executorch: Path, executorch_shim: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def executed_by() -> str:
        with Bundle.open(tiny_executorch) as bundle:
            engine = open_engine(bundle)
            engine.close()
            return engine.executed_by

    assert executed_by().endswith("(python)")
    monkeypatch.setenv(CHOICE, "shim")
    with pytest.raises(EngineError, match="no shim is built for this machine: run edgeformer-runtime build-executorch"):
        executed_by()
    shutil.copytree(executorch_shim, empty_cache / "any")
    assert executed_by().endswith("(shim)")
    monkeypatch.delenv(CHOICE)
    assert executed_by().endswith("(python)")  # which this process holds already
    monkeypatch.delitem(sys.modules, _BINDING)
    assert executed_by().endswith("(shim)")
    monkeypatch.setenv(CHOICE, "python")
    assert executed_by().endswith("(python)")


@pytest.mark.parametrize(
    ("corrupt", "problem"),
    [
        (lambda folder: (folder / RECORD_NAME).unlink(), "expected a folder that `edgeformer-runtime build-executorch"),
        (lambda folder: (folder / RECORD_NAME).write_text("[]"), "expected a folder that"),
        (lambda folder: (folder / RECORD_NAME).write_text('{"more": 1}'), "expected a folder that"),
        (lambda folder: (folder / LIBRARIES[0]).unlink(), "cannot be loaded: .*edgeformer-runtime build-executorch"),
    ],
)
def test_folders_that_are_no_build(
    executorch_shim: Path, tmp_path: Path, corrupt: Callable[[Path], None], problem: str
) -> None:
    folder = Path(shutil.copytree(executorch_shim, tmp_path / "corrupted"))
    corrupt(folder)
    # In a process of its own: libraries of one name are loaded once.
    script = f"""
from pathlib import Path
from edgeformer_runtime.engines.executorch_shim.build import read_build
from edgeformer_runtime.engines.executorch import ShimRuntime
ShimRuntime(read_build(Path({str(folder)!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(f"EngineError: .*{problem}", done.stderr), done.stderr


def test_command(tmp_path: Path, executorch_shim: Path) -> None:
    run = [sys.executable, "-c", "from edgeformer_runtime.cli.app import main; main()", "build-executorch"]
    done = subprocess.run([*run, "--out", str(tmp_path / "b"), "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["folder"] == str(tmp_path / "b")
    assert told["executorch"] == read_build(executorch_shim).record.executorch
    assert told["size_bytes"] > 5_000_000
    again = subprocess.run([*run, "--out", str(tmp_path / "b")], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr == f"error: {tmp_path / 'b'}: expected a new folder, this one exists\n"

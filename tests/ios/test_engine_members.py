"""A wrong name of a member in an engine's file fails the build, which knows the signatures of the frameworks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ios_demo.tools.check import BUILD_OPTIONS, REPOSITORY
from ios_demo.tools.swift_root import BUILD_INSIDE, REPOSITORY_INSIDE, SwiftRoot

pytestmark = [pytest.mark.ios, pytest.mark.slow]

CORE_ML = "Sources/EdgeCoreML"
EXECUTORCH = "Sources/EdgeExecuTorch"

# File, what it calls, and the same with a name that nobody has.
WRONG_NAMES = (
    (f"{CORE_ML}/CoreMLEngine.swift", ".prediction(from:", ".predict(from:"),
    (f"{CORE_ML}/CoreMLEngine.swift", ".computeUnits = units", ".computeUnit = units"),
    (f"{CORE_ML}/CoreMLEngine.swift", "model().makeState()", "model().newState()"),
    (f"{CORE_ML}/CoreMLEngine.swift", ".functionName", ".function"),
    (f"{CORE_ML}/CoreMLEngine.swift", ".multiArrayValue", ".multiArray"),
    (f"{CORE_ML}/CoreMLEngine.swift", ".cpuAndNeuralEngine", ".neuralEngine"),
    (f"{CORE_ML}/CoreMLEngine.swift", "checked.checkOutputs(", "checked.verifyOutputs("),
    (f"{CORE_ML}/CompiledModels.swift", "MLModel.compileModel(", "MLModel.compile("),
    (f"{EXECUTORCH}/ExecuTorchEngine.swift", "module.execute(", "module.run("),
    (f"{EXECUTORCH}/ExecuTorchEngine.swift", "module.load(", "module.loadMethod("),
    (f"{EXECUTORCH}/ExecuTorchEngine.swift", "loadMode: .mmap", "loadMode: .map"),
    (f"{EXECUTORCH}/ExecuTorchEngine.swift", "floats.scalars()", "floats.values()"),
)


@pytest.fixture(scope="module")
def root(swift_root: SwiftRoot) -> SwiftRoot:
    """The root, with the modules of all packages built."""
    command = ["swift", "build", "--build-tests", *BUILD_OPTIONS]
    built = swift_root.run(command, inside=REPOSITORY_INSIDE, stdout=subprocess.PIPE)
    assert built.returncode == 0, built.stdout
    return swift_root


def typecheck(root: SwiftRoot, scratch: Path, folder: str) -> subprocess.CompletedProcess[str]:
    """Check the types of a copy of a module's folder."""
    files = [f"/tmp/{scratch.name}/{path.name}" for path in sorted(scratch.glob("*.swift"))]
    command = ["swiftc", "-typecheck", "-swift-version", "6", "-I", f"{BUILD_INSIDE}/debug/Modules"]
    return root.run([*command, "-module-name", Path(folder).name, *files], stdout=subprocess.PIPE)


@pytest.mark.parametrize("folder", [CORE_ML, EXECUTORCH])
def test_the_engines_compile(root: SwiftRoot, scratch: Path, folder: str) -> None:
    shutil.copytree(REPOSITORY / "ios_demo" / folder, scratch, dirs_exist_ok=True)
    done = typecheck(root, scratch, folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("file", "right", "wrong"), WRONG_NAMES, ids=[name[2] for name in WRONG_NAMES])
def test_a_wrong_name_does_not(root: SwiftRoot, scratch: Path, file: str, right: str, wrong: str) -> None:
    folder, name = file.rsplit("/", 1)
    shutil.copytree(REPOSITORY / "ios_demo" / folder, scratch, dirs_exist_ok=True)
    source = (scratch / name).read_text(encoding="utf-8")
    assert right in source
    (scratch / name).write_text(source.replace(right, wrong), encoding="utf-8")
    done = typecheck(root, scratch, folder)
    assert done.returncode != 0
    assert f"{name}:" in done.stdout
    assert "error:" in done.stdout

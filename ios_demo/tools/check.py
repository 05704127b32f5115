"""`make ios`: builds and tests the Swift code on Linux, and checks what only Xcode can build.

    python -m ios_demo.tools.check [--swift]

EdgeFormer and EdgeDemoKit are built and tested; the engines of Core ML and ExecuTorch are built against stubs of the
frameworks; a package of another author takes the libraries by a tag, and runs; the screens are parsed and linted; the
Xcode project, its property list and its string catalogs are read and compared. `--swift` leaves these to the tests
(`tests/ios`): all else needs nothing but Python.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ios_demo.tools.swift_root import BUILD_INSIDE, REPOSITORY_INSIDE, SwiftRoot, open_root
from tools import debian
from tools.debian import SetupError

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "ios_demo"
PACKAGE_INSIDE = f"{REPOSITORY_INSIDE}/{PACKAGE}"
GENERATED = "UnicodeTables.swift"
"""Written by tests/golden, in the layout of its generator."""

BUILD_OPTIONS = ("--scratch-path", BUILD_INSIDE, "-Xswiftc", "-warnings-as-errors")
"""Of every command of SwiftPM that builds the package: with other options it would build it all anew."""

VERSION = "0.1.0"
"""The tag by which the consumer takes the libraries."""

CONSUMER_PROGRAM = "/consumer/build/debug/Consumer"
CONSUMER_FILES = ("Package.swift", "Sources/Consumer/Consumer.swift")

Check = Callable[[SwiftRoot], str]
"""What went wrong; empty where nothing did."""


def build_and_test(root: SwiftRoot) -> str:
    """All libraries compile without a warning, and all tests pass on the repository's golden files."""
    environment = {"EDGEFORMER_REPOSITORY": REPOSITORY_INSIDE}
    return _failure(root, ["swift", "test", *BUILD_OPTIONS], REPOSITORY_INSIDE, environment)


def lint(root: SwiftRoot) -> str:
    """Layout, names and documentation follow .swift-format."""
    files = [path for path in _sources("Sources", "Tests", "Stubs", "App") if not path.endswith(GENERATED)]
    files += ["../Package.swift", *(f"../tests/ios/consumer/{name}" for name in CONSUMER_FILES)]
    return _failure(root, ["swift", "format", "lint", "--strict", "--configuration", ".swift-format", *files])


def parse_app(root: SwiftRoot) -> str:
    """The screens are Swift; SwiftUI does not exist here, so their types are Xcode's to check."""
    return _failure(root, ["swiftc", "-frontend", "-parse", "-swift-version", "6", *_sources("App")])


def consume(root: SwiftRoot) -> str:
    """A package of another author takes the libraries by a tag, compiles the README's lines, and answers.

    The answer is the one that the golden bundle has recorded.
    """
    if problem := build_consumer(root):
        return problem
    bundle = "tests/golden/tiny-text.zip"
    with zipfile.ZipFile(REPOSITORY / bundle) as archive:
        case = json.loads(archive.read("vectors/cases.json"))["cases"][0]
    command = [CONSUMER_PROGRAM, f"{REPOSITORY_INSIDE}/{bundle}", case["input"]["text"]]
    said = root.run(command, stdout=subprocess.PIPE)
    label = case["expected"]["labels"][0]
    answered = said.returncode == 0 and said.stdout.startswith(f"{label} ") and " true\n" in said.stdout
    return "" if answered else f"expected {label}, found {said.stdout}"


def build_consumer(root: SwiftRoot) -> str:
    """Build that package over a repository of the libraries as they are here; what went wrong."""
    folder = root.folder / "consumer"
    folder.mkdir(exist_ok=True)
    author = ("-c", "user.name=EdgeFormer", "-c", "user.email=edgeformer@localhost")
    options = ("--scratch-path", "/consumer/build", "--cache-path", "/consumer/cache", "-Xswiftc", "-gnone")
    commands = (
        ("EdgeFormer", ("git", "init", "--quiet")),
        ("EdgeFormer", ("git", "add", ".")),
        ("EdgeFormer", ("git", *author, "commit", "--quiet", "--message", VERSION)),
        ("EdgeFormer", ("git", "tag", VERSION)),
        ("Consumer", ("swift", "build", *options)),
    )
    with debian.locked(folder / "lock"):
        # With what an earlier build has left SwiftPM at times plans with a checkout that it does not make again.
        for name in ("EdgeFormer", "Consumer", "build", "cache"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for part in ("Sources", "Stubs", "Tests"):
            shutil.copytree(REPOSITORY / PACKAGE / part, folder / "EdgeFormer" / PACKAGE / part)
        shutil.copy(REPOSITORY / "Package.swift", folder / "EdgeFormer")
        shutil.copytree(REPOSITORY / "tests" / "ios" / "consumer", folder / "Consumer")
        lines = folder / "Consumer" / "Sources" / "Consumer" / "Readme.swift"
        lines.write_text(_readme_lines(), encoding="utf-8")
        for name, command in commands:
            if problem := _failure(root, list(command), f"/consumer/{name}"):
                return problem
    return ""


def _readme_lines() -> str:
    """The README's lines of Swift as a function."""
    (lines,) = re.findall(r"```swift\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.S)
    imports = [line for line in lines.splitlines() if line.startswith("import ")]
    body = [f"    {line}" for line in lines.splitlines() if line and not line.startswith("import ")]
    return "\n".join([*imports, "", "func answer() async throws {", *body, "}", ""])


def read_app_files(_: SwiftRoot) -> str:
    """Project, property list and strings fit together."""
    from ios_demo.tools.app_files import check_app  # needs a package that reads projects

    return "\n".join(check_app(REPOSITORY / PACKAGE / "App"))


CHECKS: tuple[tuple[str, Check], ...] = (
    ("build and test", build_and_test),
    ("lint", lint),
    ("parse the app", parse_app),
    ("consumer", consume),
)
"""Those of Swift."""


def main() -> int:
    """Run the checks; the exit code: 0 all pass, 1 one fails, 2 they cannot run here."""
    try:
        root = open_root(REPOSITORY)
    except SetupError as error:
        print(f"make ios: {error}", file=sys.stderr)
        return 2
    failed, others = False, () if "--swift" in sys.argv[1:] else (("read the Xcode project", read_app_files),)
    for name, check in (*CHECKS, *others):
        begin = time.monotonic()
        problem = check(root)
        print(f"{'failed' if problem else 'ok':6} {name} ({time.monotonic() - begin:.0f} s)", flush=True)
        if problem:
            failed = True
            print(problem, file=sys.stderr, flush=True)
    return 1 if failed else 0


def _sources(*folders: str) -> list[str]:
    """Swift files of some folders of the package, relative to it."""
    package = REPOSITORY / PACKAGE
    return [
        str(path.relative_to(package)) for folder in folders for path in sorted((package / folder).rglob("*.swift"))
    ]


def _failure(
    root: SwiftRoot, command: list[str], inside: str = PACKAGE_INSIDE, environment: dict[str, str] | None = None
) -> str:
    """What a command in a folder printed, where it failed."""
    done = root.run(command, inside=inside, environment=environment, stdout=subprocess.PIPE)
    return done.stdout.strip() or f"{command[0]} failed with {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())

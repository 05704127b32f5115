"""`make ios`: builds and tests the Swift code on Linux, and checks what only Xcode can build.

    python -m ios_demo.tools.check [--swift]

EdgeCore and EdgeDemoKit are built and tested; EdgeCoreML and EdgeExecuTorch are built against stubs of the frameworks;
the screens are parsed and linted; the Xcode project, its property list and its string catalogs are read and compared.
`--swift` leaves these to the tests (`tests/ios`): all else needs nothing but Python.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ios_demo.tools.swift_root import BUILD_INSIDE, REPOSITORY_INSIDE, SwiftRoot, open_root
from tools.debian import SetupError

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "ios_demo"
PACKAGE_INSIDE = f"{REPOSITORY_INSIDE}/{PACKAGE}"
GENERATED = "UnicodeTables.swift"
"""Written by tests/golden, in the layout of its generator."""

BUILD_OPTIONS = ("--scratch-path", BUILD_INSIDE, "-Xswiftc", "-warnings-as-errors")
"""Of every command of SwiftPM that builds the packages: with other options it would build them all anew."""

Check = Callable[[SwiftRoot], str]
"""What went wrong; empty where nothing did."""


def build_and_test(root: SwiftRoot) -> str:
    """All packages compile without a warning, and all tests pass on the repository's golden files."""
    return _failure(root, ["swift", "test", *BUILD_OPTIONS], environment={"EDGEFORMER_REPOSITORY": REPOSITORY_INSIDE})


def lint(root: SwiftRoot) -> str:
    """Layout, names and documentation follow .swift-format."""
    files = [
        path for path in _sources("Sources", "Tests", "Stubs", "ExecuTorch", "App") if not path.endswith(GENERATED)
    ]
    return _failure(root, ["swift", "format", "lint", "--strict", "--configuration", ".swift-format", *files])


def parse_app(root: SwiftRoot) -> str:
    """The screens are Swift; SwiftUI does not exist here, so their types are Xcode's to check."""
    return _failure(root, ["swiftc", "-frontend", "-parse", "-swift-version", "6", *_sources("App")])


def describe_executorch(root: SwiftRoot) -> str:
    """The optional package's description can be read; its dependency is not fetched."""
    command = ["swift", "package", "--package-path", "ExecuTorch", "--scratch-path", "/tmp/executorch", "dump-package"]
    return _failure(root, command)


def read_app_files(_: SwiftRoot) -> str:
    """Project, property list and strings fit together."""
    from ios_demo.tools.app_files import check_app  # needs a package that reads projects

    return "\n".join(check_app(REPOSITORY / PACKAGE / "App"))


CHECKS: tuple[tuple[str, Check], ...] = (
    ("build and test", build_and_test),
    ("lint", lint),
    ("parse the app", parse_app),
    ("read ExecuTorch/Package.swift", describe_executorch),
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


def _failure(root: SwiftRoot, command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command in the package's folder printed, where it failed."""
    done = root.run(command, inside=PACKAGE_INSIDE, environment=environment, stdout=subprocess.PIPE)
    return done.stdout.strip() or f"{command[0]} failed with {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())

"""`python -m android_demo.tools [core | build | check APK]`: core's tests, the whole build, or the checks alone."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from android_demo.tools import bundles, steps
from android_demo.tools.checks import check_apk
from edgeformer_runtime.errors import EdgeFormerError


def main() -> int:
    """Run a command; the exit code: 0 done, 1 a test or a check failed, 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="android_demo.tools", description=__doc__)
    parser.add_argument("command", nargs="?", default="build", choices=["core", "build", "check"])
    parser.add_argument("apk", nargs="?", type=Path, help="for check: an APK")
    parser.add_argument("--output", type=Path, default=steps.PROJECT / "build", help="the folder of all outputs")
    arguments = parser.parse_args()
    layout = steps.Layout(steps.PROJECT, arguments.output.resolve())
    try:
        if arguments.command == "check":
            print_checks(arguments.apk or layout.apk)
        else:
            build(layout, whole=arguments.command == "build")
    except EdgeFormerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(layout: steps.Layout, whole: bool) -> None:
    """Fetch, compile and test core; if `whole`, the engines, too, and go on up to the checked APK."""
    with step("packages"):
        steps.fetch_all()
    with step("core"):
        steps.compile_core(layout)
    if whole:
        with step("engines"):
            steps.compile_engines(layout)
    with step("tests"):
        print_tests(steps.run_tests(layout, ["core", "engine"] if whole else ["core"]))
    if not whole:
        return
    with step("libraries"):
        steps.publish(layout)
    with step("app"):
        steps.compile_app(layout)
    with step("dex"):
        steps.make_dex(layout)
    with step("bundles"):
        bundles.install(bundles.shipped(), layout.assets)
    with step("APK"):
        steps.package_apk(layout)
    with step("checks"):
        print_checks(layout.apk)
    print(f"{layout.maven}: the libraries, as a Maven repository")
    print(f"{layout.apk} ({layout.apk.stat().st_size / 1e6:.1f} MB)")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(f"{name} ...", flush=True)
    begin = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)


def print_tests(report: str) -> None:
    """The counts of JUnit's report."""
    passed, failed = (int(re.findall(rf"\[ *(\d+) tests {what} *\]", report)[0]) for what in ("successful", "failed"))
    print(f"junit: {passed} passed, {failed} failed")


def print_checks(apk: Path) -> None:
    """What the checks of an APK found."""
    for line in check_apk(apk, steps.ABIS):
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())

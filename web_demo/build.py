"""`make web`: the web library checked, tested and built, and its page with the zoo's bundles.

    python -m web_demo.build [--no-bundles]

`dist/edgeformer.js` is what the npm package holds. `dist/site` is the whole page: any server of static files gives it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from android_demo.tools import fetch
from android_demo.tools.fetch import BuildError, run
from edgeformer_runtime.bundle.bundle import pack

FOLDER = Path(__file__).resolve().parent
SITE = FOLDER / "dist" / "site"
MODULES = FOLDER / "node_modules"


def main() -> int:
    """Build; the exit code: 0 done, 1 something failed, 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="web_demo.build", description=__doc__)
    parser.add_argument("--no-bundles", action="store_true", help="the page without bundles")
    arguments = parser.parse_args()
    try:
        install()
        for script in ("check", "test", "build"):
            print(f"{script} ...", flush=True)
            run([*npm(), "run", "--silent", script], FOLDER)
        if not arguments.no_bundles:
            add_bundles(zoo_bundles())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(SITE)
    return 0


def npm() -> list[str]:
    """The command npm, with node on the path: programs of its packages look for it there."""
    command = fetch.npm()
    node = str(Path(command[0]).parent)
    if len(command) > 1 and node not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = node + os.pathsep + os.environ["PATH"]
    return command


def install() -> None:
    """The packages of package-lock.json in node_modules, whose hashes npm checks; again where that file has changed."""
    key = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".edgeformer"
    if not stamp.is_file() or stamp.read_text() != key:
        print("packages ...", flush=True)
        run([*npm(), "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"], FOLDER)
        stamp.write_text(key)


def zoo_bundles() -> list[Path]:
    """The zoo's classifiers for both engines of the web, made once for all builds.

    Raises:
        BuildError: a gate failed.
    """
    from tools import conversions  # brings torch, which nothing else here needs
    from tools.debian import SetupError
    from tools.pi.bundles import INTENTS, THINGS

    try:
        made = conversions.bundles((INTENTS, THINGS, conversions.INTENTS_ONNX))
    except SetupError as error:
        raise BuildError(str(error)) from None
    return [path for path, precision in made.items() if precision == "dynamic-int8"]


def add_bundles(folders: list[Path]) -> None:
    """Zips of bundles, and the list of them that the page reads."""
    target = SITE / "bundles"
    target.mkdir(exist_ok=True)
    for folder in folders:
        pack(folder, target / f"{folder.name}.zip")
    names = sorted(path.name for path in target.glob("*.zip"))
    (target / "index.json").write_text(json.dumps(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

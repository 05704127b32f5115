"""Stands in for adb in tests: takes its command line as strictly as the real one, and plays a phone with the demo app.

    stand_in_adb.py FOLDER [the arguments of adb]

FOLDER/phone.json says how the phone is: {"serial", "state", "app", "start", "report", "broken"}. FOLDER/root is its
storage, and FOLDER/calls.jsonl is what was asked. Anything that adb, or the phone's shell in this play, does not know
is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

APP = "org.edgeformer.demo"
FILES = f"/sdcard/Android/data/{APP}/files"
SCREEN = f"{APP}/{APP}.BenchActivity"

PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone 7",
    "ro.soc.model": "SM0000",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "arm64-v8a",
}


def main() -> None:
    """Answer one call of adb."""
    folder = Path(sys.argv[1])
    arguments = sys.argv[2:]
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    phone = json.loads((folder / "phone.json").read_text())
    if arguments[:1] != ["-s"] or len(arguments) < 3:
        fail("adb: more than one device/emulator")
    serial, command, *rest = arguments[1:]
    if serial != phone["serial"]:
        fail(f"error: device '{serial}' not found")
    if phone["state"] != "device":
        fail(f"error: device {phone['state']}.")
    Adb(folder / "root", phone).call(command, rest)


class Adb:
    """The commands of adb that the benchmark may use."""

    def __init__(self, root: Path, phone: dict[str, Any]) -> None:
        self._root = root
        self._phone = phone

    def call(self, command: str, rest: list[str]) -> None:
        match command, rest:
            case "get-state", []:
                print("device")
            case "push", [local, remote] if remote.startswith("/"):
                self._push(Path(local), remote)
            case "pull", [remote, local] if remote.startswith("/"):
                source = self._file(remote)
                if not source.is_file():
                    fail(f"adb: error: failed to stat remote object '{remote}': No such file or directory")
                shutil.copy(source, local)
                print(f"{remote}: 1 file pulled, 0 skipped.")
            case "shell", [line]:
                self._shell(line)
            case _:
                fail(f"adb: unknown command {command} {rest}")

    def _push(self, local: Path, remote: str) -> None:
        if not local.is_file():
            fail(f"adb: error: cannot stat '{local}': No such file or directory")
        target = self._file(remote)
        if self._phone.get("full"):
            fail(f"adb: error: failed to copy '{local}' to '{remote}': remote No space left on device")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(local, target)
        print(f"{local}: 1 file pushed, 0 skipped. 35.1 MB/s")

    def _shell(self, line: str) -> None:
        if line == "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq 2>/dev/null":
            print("1800000\n2400000")
            return
        if found := re.fullmatch(r"\[ -f (\S+) \] && echo ready", line):
            if not self._file(found[1]).is_file():
                sys.exit(1)
            print("ready")
            return
        if re.search(r"[;&|<>$`*]", line):
            fail(f"/system/bin/sh: this play knows no such line: {line}")
        match shlex.split(line):
            case ["getprop", name]:
                print(PROPERTIES[name])
            case ["pm", "path", app]:
                if app != APP or not self._phone["app"]:
                    sys.exit(1)
                print(f"package:/data/app/~~x==/{APP}-y==/base.apk")
            case ["dumpsys", "package", app] if app == APP:
                print("    versionCode=1 minSdk=26 targetSdk=34\n    versionName=0.1.0")
            case ["dumpsys", "battery"]:
                print("Current Battery Service state:\n  level: 80\n  temperature: 285\n  technology: Li-ion")
            case ["cat", "/proc/cpuinfo"]:
                print("processor\t: 0\n\nprocessor\t: 1\n")
            case ["input", "keyevent", "KEYCODE_WAKEUP"]:
                pass
            case ["pidof", app] if app == APP:
                if self._phone["start"] == "dies":
                    sys.exit(1)
                print("4711")
            case ["am", "force-stop", app] if app == APP:
                pass
            case ["am", "start", "-W", "-S", "-n", screen, "--es", "report", report, "--es", "bundles", bundles]:
                self._start(screen, report, bundles.split(","))
            case ["rm", "-f", *paths] if paths:
                for path in paths:
                    self._file(path).unlink(missing_ok=True)
            case _:
                fail(f"/system/bin/sh: this play knows no such line: {line}")

    def _start(self, screen: str, report: str, bundles: list[str]) -> None:
        """What `am start` prints; it ends with 0 whatever happens. The app measures and writes its report."""
        how = self._phone["start"]
        if screen != SCREEN:
            print(f"Error type 3\nError: Activity class {{{screen}}} does not exist.")
            return
        if how == "denied":
            print("Exception occurred while executing 'start':", file=sys.stderr)
            print("java.lang.SecurityException: Permission Denial: not exported from uid 10234", file=sys.stderr)
            return
        print("Starting: Intent { cmp=" + screen + " (has extras) }\nStatus: ok\nLaunchState: COLD\nComplete")
        if how == "measures" and re.fullmatch("[0-9a-f]{1,32}", report):
            rows = [self._row(name, index) for index, name in enumerate(bundles)]
            target = self._file(f"{FILES}/bench/{report}.json")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps({"device": {}, "bundles": rows} | self._phone.get("report", {})))

    def _row(self, name: str, index: int) -> dict[str, Any]:
        """A row of BenchReport.kt, after a look into the pushed zip."""
        with zipfile.ZipFile(self._file(f"{FILES}/bundles/{name}.zip")) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        if index in self._phone.get("broken", []):
            return {"name": name, "error": "the engine cannot open model.bin"}
        return {
            "name": name,
            "engine": manifest["target"],
            "executed_by": "onnxruntime 1.29.0",
            "precision": manifest["precision"],
            "program": manifest["programs"][-1]["name"],
            "attention": manifest["attention"],
            "weights_sha256": manifest["source"]["weights_sha256"],
            "threads": 4,
            "latency_ms": {"median": 2.0 * (index + 1), "p90": 2.5 * (index + 1), "runs": 100},
            "load_ms": 31.5,
            "memory_mb": 12.25,
            "size_bytes": 1000,
            "verification": {"ok": True, "first_diverging": None, "stages": []},
        }

    def _file(self, path: str) -> Path:
        """Where a path of the phone lies; the app's storage is all that a shell may write to here."""
        if not path.startswith(f"{FILES}/") or ".." in path:
            fail(f"{path}: Permission denied")
        return self._root / path.lstrip("/")


def fail(message: str) -> NoReturn:
    """End as adb does."""
    print(message, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()

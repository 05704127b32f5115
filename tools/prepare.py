"""What the jobs of CI take from Debian, fetched side by side and before there is a .venv.

    python3 -m tools.prepare

Each job fetches what it lacks by itself, too; but apt serves one at a time, and most of this waits for a network.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from ios_demo.tools.swift_root import open_root
from tools import debian
from tools.code_key import REPOSITORY
from tools.pi.emulated_pi import open_pi

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-x86_64-static": "qemu-user-static",
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "mvn": "maven",
    "/usr/share/maven-repo/org/apache/maven/plugins/maven-dependency-plugin": "libmaven-dependency-plugin-java",
    "/usr/share/maven-repo/junit/junit/4.x": "junit4",
}
"""The package of each program, or file. Maven resolves what an app needs of the Android libraries, by a plugin."""


def main() -> int:
    """Install the packages and make the systems; the exit code: 0 done, 2 it cannot be done here."""
    try:
        debian.install(PROGRAMS)
        with ThreadPoolExecutor() as pool:
            swift = pool.submit(open_root, REPOSITORY)
            open_pi()
            swift.result()
    except debian.SetupError as error:
        print(f"tools.prepare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

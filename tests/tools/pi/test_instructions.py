"""Counting instructions: what is read of a run, and the plugin in the emulator itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.debian import SetupError
from tools.pi.instructions import QEMU, build_plugin, instructions_between

ASKING = """
#include <sys/resource.h>

int main(int count, char **arguments) {
  (void)arguments;
  getpriority(77, 0);
  volatile long sum = 0;
  for (long i = 0; i < 1000000; i++) sum += count;
  getpriority(77, 0);
  return 0;
}
"""


def test_the_difference_of_two_counts() -> None:
    assert instructions_between("a log\ninstructions: 100\nx\ninstructions: 350\n", "it") == 250


@pytest.mark.parametrize("printed", ["", "instructions: 1\n", "instructions: 1\n" * 3, "x instructions: 1\n" * 2])
def test_anything_else_is_told(printed: str) -> None:
    with pytest.raises(SetupError, match="it: expected two counts of instructions"):
        instructions_between(printed, "it")


@pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "aarch64-linux-gnu-gcc", QEMU[0]))), reason="needs qemu-user and both compilers"
)
def test_the_plugin_counts_a_loop(tmp_path: Path) -> None:
    """At -O0 a turn of the loop takes nine instructions or ten: a few loads, two sums, a comparison, a branch."""
    source, program = tmp_path / "asking.c", tmp_path / "asking"
    source.write_text(ASKING)
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-O0", "-o", program, source], check=True)
    done = subprocess.run(
        [*QEMU, "-plugin", str(build_plugin(tmp_path)), str(program)], stderr=subprocess.PIPE, text=True, check=True
    )
    assert 7e6 < instructions_between(done.stderr, "the loop") < 14e6

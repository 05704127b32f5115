"""CI's jobs: side by side and in order; the first that fails or hangs is named, and ends all others."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tools import ci
from tools.ci import Job

APP_FILES = (ci.REPOSITORY / "tests" / "ios" / "test_app_files.py").read_text()
MAKEFILE = (ci.REPOSITORY / "Makefile").read_text()


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ci, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(ci, "POLL_S", 0.01)
    return tmp_path / "logs"


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead, but not waited for, does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_job_waits_for_those_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    jobs = (
        Job("user", f"echo used; cat {made}", 1, ("maker",)),
        Job("maker", f"echo it > {made}", 1, ("no chosen one",)),
    )
    assert ci.run(jobs) is None
    printed = capsys.readouterr().out
    assert printed.index("ci: maker starts") < printed.index("maker passed") < printed.index("ci: user starts")
    assert f"===== user: echo used; cat {made}\nused\nit\n===== user passed after 0 s (0 CPU s)\n" in printed


def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    jobs = [
        Job(mine.name, f"touch {mine}; while [ ! -e {theirs} ]; do sleep 0.01; done", 1)
        for mine, theirs in ((one, other), (other, one))
    ]
    assert ci.run(jobs) is None


def test_a_job_that_waits_for_a_network_takes_no_slot(tmp_path: Path) -> None:
    there = tmp_path / "there"
    waits = Job("waits", f"while [ ! -e {there} ]; do sleep 0.01; done", 1, slots=0)
    most = [Job(f"{number}", f"while [ ! -e {tmp_path}/free ]; do sleep 0.01; done", 1) for number in range(ci.SLOTS)]
    last = Job("last", f"touch {there}", 1)
    frees = Job("frees", f"sleep 0.1; test ! -e {there}; touch {tmp_path}/free", 1, slots=0)
    assert ci.run([waits, *most, last, frees]) is None


def test_a_job_says_its_cpu_time(capsys: pytest.CaptureFixture[str]) -> None:
    burn = "python3 -c 'import time\nwhile time.process_time() < 1: pass'"
    assert ci.run([Job("burns", burn, 1), Job("sleeps", "sleep 1", 1)]) is None
    printed = capsys.readouterr().out
    taken = {name: int(s) for name, s in re.findall(r"===== (\w+) passed after \d+ s \((\d+) CPU s\)", printed)}
    assert 1 <= taken["burns"] <= 2 and taken["sleeps"] == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Job("bad", "echo why; exit 3", 1), "why\n===== bad FAILED with 3 after"),
        (Job("bad", "false | cat", 1), "===== bad FAILED with 1 after"),
        (Job("bad", "seq 1000; sleep 1000", 0.005), "1000\n===== bad HANGS: here are its last lines; it is ended"),
    ],
)
def test_the_first_bad_job_is_named_and_ends_the_run(
    bad: Job, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = tmp_path / "number"
    started = f"(sleep 1000 & echo $! > {number}.new; mv {number}.new {number}; wait)"
    late = Job("bad", f"while [ ! -e {number} ]; do sleep 0.01; done; {bad.command}", 1)
    jobs = [Job("endless", started, 1), late if bad.deadline_minutes == 1 else bad, Job("never", "true", 1, ("bad",))]
    assert ci.run(jobs) == "bad"
    printed = capsys.readouterr().out
    assert said in printed and "never" not in printed
    while number.exists() and alive(int(number.read_text())):  # a killed process dies when its turn comes
        time.sleep(0.01)


def test_a_hung_job_shows_no_more_than_its_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    ci.run([Job("long", "seq 1000; sleep 1000", 0.005)])
    shown = [line for line in capsys.readouterr().out.splitlines() if line.isdecimal()]
    assert len(shown) == ci.TAIL_LINES and shown[-1] == "1000"


def test_an_unknown_job_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert ci.main(["lint", "linnt"]) == 2
    assert "ci: no job linnt: expected some of setup, browser, debian, ios, test, lint, " in capsys.readouterr().err


def test_help_names_every_job_and_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ci.main(["--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and printed.startswith("usage: .ci/run")
    assert all(re.search(rf"^  {job.name} +{re.escape(job.command)}$", printed, re.M) for job in ci.JOBS)


def test_every_target_that_checks_has_a_job_and_no_test_is_left_out() -> None:
    commands = " && ".join(job.command for job in ci.JOBS)
    asked = set(re.findall(r"make ([a-z-]+)", commands))
    assert asked == {"browser", "setup", "lint", "test", "pi", "android", "older-cpu", "web"}
    assert "python3 -m ios_demo.tools.check --swift" in commands and "test_the_app_is_whole" in APP_FILES
    assert asked <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    for ignored in re.findall(r"--ignore (\S+?)[' ]", commands):
        assert any(job.command.endswith(f"pytest {ignored}") for job in ci.JOBS), ignored


def test_jobs_wait_for_jobs_before_them() -> None:
    before: set[str] = set()
    for job in ci.JOBS:
        assert before.issuperset(job.after)
        before.add(job.name)

"""Signals end a command, its workers and what it was writing; closed streams and readers that leave do no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpluld.compat.follow import following
from mmpluld.datasets.converters import convert_deeplesion
from mmpluld.errors import InputError
from mmpluld.phantom import write_deeplesion_layout

# A command with a worker, a child command and a temporary, all of which must be gone when it has ended.
WORK = """
import multiprocessing, subprocess, sys, time
from pathlib import Path
import mmpluld.cli.doctor as d
import mmpluld.cli.main as m
from mmpluld.atomic import atomic_path
from mmpluld.compat.follow import following

def work(_):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    worker.start()
    child = subprocess.Popen(following([sys.executable, "-c", "import time; time.sleep(100)"]))
    with atomic_path(Path(sys.argv[1]) / "out.txt"):
        print(worker.pid, child.pid, flush=True)
        time.sleep(100)

d.run = work
sys.exit(m.main(["doctor"]))
"""


@pytest.fixture(autouse=True)
def _signals_are_not_ignored():
    """Where the tests run under ``nohup`` or in the background of a script, children would inherit that."""
    ordinary = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in ordinary.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def gone(process: int, seconds: float = 20) -> bool:
    """Whether a process ends; one that nobody has waited for has ended too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "mmpluld: interrupted\n"),
        (signal.SIGTERM, 143, "mmpluld: ended by SIGTERM\n"),
        (signal.SIGHUP, 129, "mmpluld: ended by SIGHUP\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_a_signal_ends_all_that_a_command_began(tmp_path, number, status, line):
    command = subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes = [int(word) for word in command.stdout.readline().split()]
    assert len(processes) == 2
    assert len(list(tmp_path.iterdir())) == 1
    command.send_signal(number)
    assert command.wait(20) == status
    assert command.stderr.read() == line
    command.stdout.close()
    command.stderr.close()
    assert all(map(gone, processes))
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [] or number == signal.SIGKILL


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_a_library_turns_into_an_error(name, status):
    code = (
        "import os, signal, time, mmpluld.cli.main as m, mmpluld.cli.doctor as d\n"
        "def run(_):\n"
        " try:\n"
        f"  os.kill(os.getpid(), signal.{name}); time.sleep(20)\n"
        " except:\n"
        "  raise SyntaxError('check the config') from None\n"
        "d.run = run\nraise SystemExit(m.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert done.stderr.startswith(("mmpluld: interrupted", f"mmpluld: ended by {name}"))


def test_an_ignored_signal_stays_ignored(tmp_path):
    code = "import os, signal, mmpluld.cli.main as m, mmpluld.cli.doctor as d\n"
    code += "d.run = lambda _: os.kill(os.getpid(), signal.SIGHUP) or 0\n"
    ignored = [
        "sh",
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        sys.executable,
        "-c",
        f"{code}raise SystemExit(m.main(['doctor']))",
    ]
    assert subprocess.run(ignored, check=False).returncode == 0


def test_a_child_of_a_parent_that_has_ended_does_not_begin():
    command = [sys.executable, "-c", "import time; time.sleep(100)"]
    orphan = following(command)
    orphan[3] = "1"  # not the process that starts it
    assert subprocess.run(orphan, check=False, timeout=60).returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("{} models 2>&-", 0),
        ("{} models >&-", 0),
        ("{} models >&- 2>&- <&-", 0),
        ("{} nonsense 2>&-", 2),
        ("{} nonsense >&- 2>&-", 2),
        ("set -o pipefail; {} models | true", 0),
    ],
)
def test_closed_streams_change_no_status(shell, status, tmp_path):
    done = subprocess.run(
        ["bash", "-c", shell.format(f"{sys.executable} -m mmpluld")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception" not in done.stderr


def test_what_a_library_prints_does_not_get_into_a_file(tmp_path):
    code = (
        "import os, sys, mmpluld.cli.main as m, mmpluld.cli.doctor as d\n"
        "def run(_):\n"
        " with open(sys.argv[1], 'w') as stream:\n"
        "  os.write(1, b'noise'); os.write(2, b'noise'); stream.write('whole')\n"
        " return 0\n"
        "d.run = run\nraise SystemExit(m.main(['doctor']))"
    )
    out = tmp_path / "out.txt"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", code, str(out)], check=False
    )
    assert done.returncode == 0
    assert out.read_text() == "whole"


def test_the_work_goes_on_when_nobody_reads_what_it_says(tmp_path):
    code = (
        "import sys, mmpluld.cli.main as m, mmpluld.cli.doctor as d\n"
        "def run(_):\n"
        " for _ in range(3): print('x' * 100000, flush=True); print('note', file=sys.stderr)\n"
        " open(sys.argv[1], 'w').write('whole')\n"
        " return 1\n"
        "d.run = run\nraise SystemExit(m.main(['doctor']))"
    )
    out = tmp_path / "out.txt"
    command = ["bash", "-o", "pipefail", "-c", '"$@" 2>&1 | true', "sh", sys.executable, "-c", code, str(out)]
    assert subprocess.run(command, check=False).returncode == 1
    assert out.read_text() == "whole"


def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "mmpluld", "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "mmpluld: error: an output: cannot be written (No space left on device); make room\n"


def test_a_broken_pipe_elsewhere_is_a_failure():
    code = (
        "import os, mmpluld.cli.main as m, mmpluld.cli.doctor as d\n"
        "def run(_):\n"
        " read, write = os.pipe(); os.close(read); os.write(write, b'x')\n"
        "d.run = run\nraise SystemExit(m.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr


def test_a_phantom_that_was_killed_is_made_anew(tmp_path):
    """One kill; tests/integration/test_kills.py has many."""
    settings = {"size": 32, "max_slices": 6, "lesions_per_series": 2}
    given = [f"{name}={value}" for name, value in settings.items()]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mmpluld",
            "phantom",
            "deeplesion",
            str(out),
            "--patients",
            "2",
            "1",
            "1",
            "--set",
            *given,
        ]
    )
    while not (out / "Images_png").is_dir():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert (out / ".unfinished-phantom.json").exists()
    with pytest.raises(InputError, match="holds a phantom that was interrupted"):
        convert_deeplesion(out)
    for folder in (out, tmp_path / "whole"):
        write_deeplesion_layout(folder, (2, 1, 1), workers=1, **settings)
    assert contents(out) == contents(tmp_path / "whole")


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

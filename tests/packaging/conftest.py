"""One build and one installation for all tests of packaging."""

import fcntl
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """Folder of wheel and source distribution, built once for all processes of the test run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    out = shared / "distributions"
    with (shared / "distributions.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # builds of one source tree share its build folder
        if not out.is_dir():
            half = shared / "distributions.part"
            command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(half), str(ROOT)]
            subprocess.run(command, check=True, capture_output=True)
            half.rename(out)
    return out


@pytest.fixture(scope="session")
def installed(distributions, tmp_path_factory):
    """A fresh environment that sees our dependencies, with the wheel installed."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A path file makes the packages of this environment visible without downloading them again; paths added by
    # the environment's own editable installs are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = distributions.glob("*.whl")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True)
    return folder, site


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess]:
    """Function that runs a command outside of the checkout."""
    return _run


def _run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, capture_output=True, encoding="utf-8", env=environment, timeout=240
    )

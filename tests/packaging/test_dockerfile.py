"""The Dockerfile agrees with the package: what it copies is there and makes a wheel, its arguments exist."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_what_goes_to_the_builder_is_what_the_wheel_is_made_of():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    setup = (ROOT / "setup.py").read_text()
    folders = re.search(r"^FOLDERS = \((.*)\)$", setup, re.MULTILINE)[1]
    index = re.search(r'^INDEX = "(.*)"$', setup, re.MULTILINE)[1]
    needed = {*re.findall(r'"(\w+)"', folders), index, "mmpluld", "tools", "setup.py", "setup.cfg", "pyproject.toml"}
    assert needed | {"README.md", "LICENSE", "requirements.txt"} <= kept


def test_arguments_name_what_the_package_has():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = re.search(r"^ARG EXTRAS=(\S+)$", TEXT, re.MULTILINE)[1].split(",")
    assert set(extras) <= set(config["options.extras_require"])
    assert f"Python :: {re.search(r'^ARG PYTHON=(.+)$', TEXT, re.MULTILINE)[1]}\n" in config["metadata"]["classifiers"]
    assert re.search(r"^torch==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    page = (ROOT / "docs/how_to/install.md").read_text(encoding="utf-8")
    for name in re.findall(r"^ARG (\w+)", TEXT, re.MULTILINE):
        assert f"`{name}`" in page


def test_it_runs_without_rights():
    steps = TEXT.splitlines()
    assert steps.index("USER mmpluld") < steps.index('ENTRYPOINT ["mmpluld"]')

"""Versions are said in one way: packaging metadata, the check at start, and the tested environment."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmpluld.compat.versions import ALTERNATIVES, HOST_PACKAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def metadata():
    """Requirement by name, of the package and of its extra ``lite``."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"] + parser["options.extras_require"]["lite"]
    parsed = [Requirement(line) for line in lines.splitlines() if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in parsed}


@pytest.mark.parametrize("package", HOST_PACKAGES)
def test_metadata_repeats_what_is_checked_at_start(package, metadata):
    floor, ceiling = HOST_PACKAGES[package]
    (name,) = set(ALTERNATIVES.get(package, (package,))) & set(metadata)
    specifier = metadata[name].specifier
    pinned = [part.version for part in specifier if part.operator == "=="]
    floors = [part.version for part in specifier if part.operator == ">="] or pinned or ["0"]
    assert floors == [floor]
    ceilings = [part.version for part in specifier if part.operator == "<"]
    assert pinned or ceilings == ([ceiling] if ceiling else [])


def test_tested_environment_lies_within_the_metadata(metadata):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert all(requirement.specifier.contains(tested[name]) for name, requirement in metadata.items())


def test_floors_are_printed_as_constraints(metadata):
    command = [sys.executable, str(ROOT / "tools" / "floors.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    constraints = {requirement.name: requirement.specifier for requirement in map(Requirement, printed)}
    for name, requirement in metadata.items():
        for part in requirement.specifier:
            if part.operator in (">=", "=="):
                assert constraints[name].contains(part.version)
                assert not constraints[name].contains("99")

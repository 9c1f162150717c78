"""Versions are said in one way: packaging metadata, the check at start, and the tested environment."""

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmpluld.compat.extras import EXTRAS
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
    lines = "".join((ROOT / f"requirements{part}.txt").read_text() for part in ("", "-dev", "-docs")).splitlines()
    tested = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0]]
    assert {requirement.name for requirement in tested} >= set(metadata)
    for requirement in tested:
        (pinned,) = requirement.specifier
        assert requirement.name not in metadata or metadata[requirement.name].specifier.contains(pinned.version)


def test_extras_are_those_that_are_asked_for():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for name, modules in EXTRAS.items():
        assert parser["options.extras_require"][name].split() == list(modules.values())

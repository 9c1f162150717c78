"""Print the lowest versions that the dependencies in setup.cfg allow, as constraints for pip.

Example: python tools/floors.py setup.cfg > floors.txt && pip install --constraint floors.txt --editable ".[lite,test]"
"""

import argparse
import configparser
import sys
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version


def floors(setup_cfg: str) -> list[str]:
    """``name==version`` for every dependency of the package, with its marker if it has one.

    Args:
        setup_cfg: Text of ``setup.cfg``.

    Raises:
        ValueError: A dependency is malformed, or has no lowest version that could be tested.
        KeyError: There is no ``[options] install_requires``.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(setup_cfg)
    lines = [line.partition("#")[0].strip() for line in config["options"]["install_requires"].splitlines()]
    constraints = []
    for requirement in map(Requirement, filter(None, lines)):
        bounds = [Version(item.version) for item in requirement.specifier if item.operator in (">=", "==", "~=")]
        if not bounds:
            raise ValueError(f"{str(requirement)!r} has no lowest version; write {requirement.name}>=VERSION")
        marker = f"; {requirement.marker}" if requirement.marker else ""
        constraints.append(f"{requirement.name}=={max(bounds)}{marker}")
    return constraints


def main() -> int:
    """Read the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup_cfg", help="file with the section [options]")
    path = parser.parse_args().setup_cfg
    try:
        print("\n".join(floors(Path(path).read_text(encoding="utf-8"))))
    except (OSError, KeyError, ValueError, InvalidRequirement, configparser.Error) as error:
        parser.exit(2, f"floors: error: {path}: {' '.join(str(error).split())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

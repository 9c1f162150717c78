"""Print the lowest versions that setup.cfg allows as pip constraints: ``pip install -c floors.txt ".[lite,test]"``."""

import configparser
import re
from pathlib import Path


def main() -> None:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parents[1] / "setup.cfg")
    lines = parser["options"]["install_requires"] + parser["options.extras_require"]["lite"]
    for name, operator, version in re.findall(r"^([\w-]+)(>=|==)([\d.]+)", lines, flags=re.MULTILINE):
        print(f"{name}=={version}" if operator == "==" else f"{name}=={version}.*")


if __name__ == "__main__":
    main()

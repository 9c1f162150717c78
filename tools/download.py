"""``mim run mmpluld download NAME`` comes here."""

import sys

from mmpluld.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["download", *sys.argv[1:]]))

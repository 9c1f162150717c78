"""``mim test mmpluld CONFIG --checkpoint C`` and ``torchrun tools/test.py CONFIG C --launcher pytorch`` come here."""

import sys

from mmpluld.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))

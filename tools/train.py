"""``mim train mmpluld CONFIG`` and ``torchrun tools/train.py CONFIG --launcher pytorch`` come here."""

import sys

from mmpluld.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

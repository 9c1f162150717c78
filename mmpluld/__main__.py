"""``python -m mmpluld`` is the ``mmpluld`` command."""

import sys

from mmpluld.cli.main import main

sys.exit(main())

"""Enter new configs into configs/*/metafile.yml and write docs/model_zoo.md and the tables of the methods' READMEs."""

import sys
from pathlib import Path

from mmpluld.errors import InputError
from mmpluld.publish.pages import complete_metafiles, write_pages

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    try:
        for path in [*complete_metafiles(root), *write_pages(root)]:
            print(f"wrote {path.relative_to(root)}")
    except InputError as error:
        sys.exit(f"model_zoo: error: {error}")

"""The reference page lists what is registered, and nothing else."""

import re
from pathlib import Path

from mmengine import registry as host
from mmengine.registry import Registry

import mmpluld.registry as ours

ROOT = Path(__file__).resolve().parents[2]


def test_page_lists_every_registered_name_with_its_file():
    listed = {}
    for line in (ROOT / "docs/reference.md").read_text().splitlines():
        cells = line.split("|")
        if line.startswith("| `"):
            for name in re.findall(r"`(\w+)`", cells[1]):
                listed[name] = re.search(r"`(mmpluld/\S+\.py)`", cells[3])[1]
    registered = {}
    for registry in [*vars(ours).values(), *vars(host).values()]:
        if isinstance(registry, Registry):
            registry.import_from_location()
            registered.update(
                {name: entry for name, entry in registry.module_dict.items() if entry.__module__.startswith("mmpluld.")}
            )
    assert listed.keys() == registered.keys()
    for name, entry in registered.items():
        assert listed[name] == entry.__module__.replace(".", "/") + ".py"

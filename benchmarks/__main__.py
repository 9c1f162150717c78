"""Run every benchmark of this folder, print the tables and write them to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import platform
import sys
from pathlib import Path

import benchmarks
from mmpluld.atomic import atomic_write_text
from mmpluld.compat.versions import describe_environment

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def _table(rows: list[dict]) -> str:
    """Rows as a Markdown table; the columns are the keys of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run them one after the other."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)} (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}; needs a run of all")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown or (options.write and options.names):
        parser.error(f"unknown benchmark {sorted(unknown)}" if unknown else "--write needs a run of all")
    sections = []
    for name in options.names or names:
        result = importlib.import_module(f"benchmarks.{name}").run()
        sections.append(f"## {result['name']}\n\nBar: {result['bar']}\n\n{_table(result['rows'])}\n")
        print(sections[-1], flush=True)
    if options.write:
        facts = [f"- {key}: {value}" for key, value in describe_environment().items()]
        head = f"# Benchmarks\n\nWritten by `python -m benchmarks --write`.\n\n- machine: {platform.machine()}\n"
        atomic_write_text(PAGE, head + "\n".join(facts) + "\n\n" + "\n".join(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())

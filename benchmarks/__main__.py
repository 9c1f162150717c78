"""Run benchmarks of this folder, print their tables and write them to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import platform
import sys
from pathlib import Path

import benchmarks
from mmpluld.atomic import atomic_write_text
from mmpluld.cli.numbers import whole
from mmpluld.compat.versions import describe_environment
from mmpluld.errors import InputError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def _table(rows: list[dict]) -> str:
    """Rows as a Markdown table; the columns are the keys of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _head() -> str:
    """What stands above the tables."""
    facts = [f"- {key}: {value}" for key, value in describe_environment().items()]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `python -m benchmarks --write`.",
            "",
            f"- machine: {platform.machine()}",
            *facts,
        ]
    )


def _write(sections: dict[str, str], every: bool) -> None:
    """Write the page; unless ``every`` benchmark was run, the other sections stay if the page is of the same machine.

    Raises:
        SystemExit: They would stand below the facts of another machine or other versions.
    """
    kept: dict[str, str] = {}
    if not every and PAGE.is_file():
        head, *old = PAGE.read_text(encoding="utf-8").split("\n## ")
        if head.strip() != _head():
            raise SystemExit(f"{PAGE}: other tables are of another machine or other versions; run all benchmarks")
        kept = {text.partition("\n")[0]: f"## {text.strip()}\n" for text in old}
    atomic_write_text(PAGE, "\n".join([f"{_head()}\n", *(kept | sections).values()]))


def _real_ct(arguments: list[str]) -> int:
    """The benchmark of scans that do not come with the project: its table stands with the weights, not on the page."""
    from benchmarks.real_ct import run

    try:
        result = run(arguments)
    except InputError as error:
        print(f"python -m benchmarks real_ct: {error}", file=sys.stderr)
        return 2
    print(f"\n{result['name']}; bar: {result['bar']}\n\n{_table(result['rows'])}")
    return 0


def main() -> int:
    """Run them one after the other."""
    if sys.argv[1:2] == ["real_ct"]:
        return _real_ct(sys.argv[2:])
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    names = [name for name in modules if not name.startswith("_") and name != "real_ct"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="real_ct has inputs and options of its own: python -m benchmarks real_ct --help",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)} (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write what was run to {PAGE.name}")
    parser.add_argument("--inputs", type=whole(1), default=1000, help="damaged inputs of `fuzz` (default: %(default)s)")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)}")
    sections = {}
    for name in options.names or names:
        settings = {"inputs": options.inputs} if name == "fuzz" else {}
        result = importlib.import_module(f"benchmarks.{name}").run(**settings)
        sections[result["name"]] = f"## {result['name']}\n\nBar: {result['bar']}\n\n{_table(result['rows'])}\n"
        print(sections[result["name"]], flush=True)
    if options.write:
        _write(sections, not options.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())

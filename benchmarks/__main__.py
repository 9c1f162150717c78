"""Run benchmarks of this folder, print their tables and write them to docs/benchmarks.md; on a GPU those of ``cuda``,
to docs/benchmarks_gpu.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import platform
import sys
from pathlib import Path
from typing import Any

from mmpluld.atomic import atomic_write_text
from mmpluld.cli.numbers import whole
from mmpluld.compat.versions import describe_environment
from mmpluld.errors import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"cpu": DOCS / "benchmarks.md", "cuda": DOCS / "benchmarks_gpu.md"}
_PACKAGES = {"cpu": "benchmarks", "cuda": "benchmarks.cuda"}
TITLES = {"cpu": "Benchmarks", "cuda": "Benchmarks on a GPU"}
COMMANDS = {"cpu": "python -m benchmarks", "cuda": "python -m benchmarks --device cuda"}


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the columns are the keys of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _head(device: str) -> str:
    """What stands above the tables."""
    facts = [f"- {key}: {value}" for key, value in describe_environment().items()]
    return "\n".join(
        [
            f"# {TITLES[device]}",
            "",
            f"Written by `{COMMANDS[device]} --write`.",
            "",
            f"- machine: {platform.machine()}",
            *facts,
        ]
    )


def _write(sections: dict[str, str], every: bool, device: str) -> None:
    """Write the page; unless ``every`` benchmark was run, the other sections stay if the page is of the same machine.

    Raises:
        SystemExit: They would stand below the facts of another machine or other versions.
    """
    kept: dict[str, str] = {}
    page = PAGES[device]
    if not every and page.is_file():
        head, *old = page.read_text(encoding="utf-8").split("\n## ")
        if head.strip() != _head(device):
            raise SystemExit(f"{page}: other tables are of another machine or other versions; run all benchmarks")
        kept = {text.partition("\n")[0]: f"## {text.strip()}\n" for text in old}
    atomic_write_text(page, "\n".join([f"{_head(device)}\n", *(kept | sections).values()]))


def _real_ct(arguments: list[str]) -> int:
    """The benchmark of scans that do not come with the project: its table stands with the weights, not on the page."""
    from benchmarks.real_ct import run

    try:
        result = run(arguments)
    except InputError as error:
        print(f"python -m benchmarks real_ct: {error}", file=sys.stderr)
        return 2
    print(f"\n{result['name']}; bar: {result['bar']}\n\n{_table(result['rows'])}")
    if result["default"]:
        print(f"\nWith the model's default threshold:\n\n{_table(result['default'])}")
    return 0


def main() -> int:
    """Run them one after the other."""
    if sys.argv[1:2] == ["real_ct"]:
        return _real_ct(sys.argv[2:])
    names = {device: _names(device) for device in PAGES}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="real_ct has inputs and options of its own: python -m benchmarks real_ct --help",
    )
    listed = ", ".join(names["cpu"]), ", ".join(names["cuda"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="some of: {}; with --device cuda: {} (default: all)".format(*listed)
    )
    parser.add_argument("--device", choices=list(PAGES), default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write what was run to the page of the device in docs")
    parser.add_argument("--inputs", type=whole(1), default=1000, help="damaged inputs of `fuzz` (default: %(default)s)")
    options = parser.parse_args()
    known = names[options.device]
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)}; for {options.device} there are {', '.join(known)}")
    if options.device == "cuda" and not _has_gpu():
        print("skipped: torch sees no CUDA device on this machine")
        return 0
    sections = {}
    for name in options.names or known:
        settings = {"inputs": options.inputs} if name == "fuzz" else {}
        result = importlib.import_module(f"{_PACKAGES[options.device]}.{name}").run(**settings)
        sections[result["name"]] = f"## {result['name']}\n\nBar: {result['bar']}\n\n{_table(result['rows'])}\n"
        print(sections[result["name"]], flush=True)
    if options.write:
        _write(sections, not options.names, options.device)
    return 0


def _names(device: str) -> list[str]:
    """Benchmarks for a device, but for the one with options of its own."""
    folder = importlib.import_module(_PACKAGES[device])
    found = [module.name for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg]
    return [name for name in found if not name.startswith("_") and name != "real_ct"]


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    sys.exit(main())

"""The pages hang together: no link leads nowhere, and every page can be reached from the README."""

import re
import shlex
from pathlib import Path

import pytest

from mmpluld.cli.main import COMMANDS, command_parser

ROOT = Path(__file__).resolve().parents[2]


def _links(page: Path) -> set[Path]:
    """Files in this repository that a page links to."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    return {(page.parent / target).resolve() for target in local if target}


def test_every_page_is_reached_and_no_link_is_dead():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in _links(page):
            assert target.exists(), f"{page.relative_to(ROOT)} links to {target}"
            if target.suffix == ".md" and target not in reached:
                waiting.append(target)
    pages = {*(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.md")}
    assert pages - reached == set()


def test_every_kind_of_bad_input_names_a_test_that_exists():
    page = (ROOT / "docs/explanation/bad_input.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| input |")]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, f"four cells are needed: {row}"
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cells[3])
        assert tests, f"names no test: {row}"
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {name}"


def test_every_difference_of_two_rows_is_one_of_a_report():
    """Points with their interval, such as "+1.27 (-1.58 to +4.13)"."""
    reports = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/results").rglob("*.md"))
    found = []
    for page in _pages():
        if "results" not in page.relative_to(ROOT).parts:
            differences = re.findall(r"[+-]\d+\.\d+ \([+-]\S+ to [+-][\d.]+\)", page.read_text(encoding="utf-8"))
            found += differences
            assert [difference for difference in differences if difference not in reports] == [], page
    assert len(found) > 50


def _command_lines(page: Path) -> list[str]:
    """The lines of a page's code blocks that start our command, each from its name on."""
    text = page.read_text(encoding="utf-8")
    lines = []
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE):
        if language not in ("", "bash"):
            continue
        for line in re.split(r"\n| && ", block.replace("\\\n", " ")):
            found = re.match(r"\s*(?:\w+=\S+ |torchrun .*? -m |srun .*?|mpirun .*?)?\bmmpluld ([a-z].*)", line)
            lines += [found[1]] if found else []
    return lines


def _pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.md")]


def test_every_command_of_the_pages_is_one_that_its_parser_takes(capsys):
    seen = set()
    for page in _pages():
        for line in _command_lines(page):
            words = shlex.split(line, comments=True)
            assert words[0] in COMMANDS, f"{page.relative_to(ROOT)}: mmpluld {line}"
            seen.add(words[0])
            parser = command_parser(words[0])
            try:
                parser.check_options(words[1:])
                if "..." not in words:  # some pages leave out what was said before
                    parser.parse_args(words[1:])
            except SystemExit:
                pytest.fail(f"{page.relative_to(ROOT)}: mmpluld {line}\n{capsys.readouterr().err}")
    assert set(COMMANDS) == seen


def test_every_command_that_configs_and_messages_name_is_there():
    files = [path for folder in ("mmpluld", "configs", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    named = {
        (name, path)
        for path in files
        for name in re.findall(r"(?:`|: )mmpluld ([a-z][a-z-]*)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 100
    assert not {(name, str(path.relative_to(ROOT))) for name, path in named if name not in COMMANDS}

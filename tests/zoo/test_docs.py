"""The pages hang together: no link leads nowhere, and every page can be reached from the README."""

import re
from pathlib import Path

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

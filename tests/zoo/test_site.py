"""The pages as a site: `make docs` without a warning, nothing missing, nothing fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpluld.cli.main import COMMANDS

pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra: docs)")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed (extra: docs)")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def article(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


def test_every_page_is_there_and_reads_as_markdown(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        text = re.sub(r"<pre.*?</pre>", "", article(page), flags=re.DOTALL)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, flags=re.DOTALL):
            assert not re.search(r"(^|\n)\s*(\d+\. |\| |```|:::)|\]\(", paragraph), f"{page}: {paragraph}"
        assert not re.search(r":(class|func|meth|mod|data):", text), page


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//', text), page
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(?:https?:)?//', text), page


def test_commands_api_and_configs_are_described(site):
    commands = article(site / "reference/commands.html")
    assert set(re.findall(r'<h2 id="([\w-]+)"', commands)) == set(COMMANDS)
    assert "--fp-rate" in commands
    named = article(site / "reference.html")
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>", named, flags=re.DOTALL)
    assert rows and all("<a " in row and "<code" in row for row in rows)
    api = article(site / "reference/api_detect.html")
    for name in ("Detector", "Findings", "CTVolume", "Findings.to_pandas"):
        assert f'id="mmpluld.{name}"' in api
    config = article(site / "configs/pluld/pluld-a3d_densenet121-fpn_7s_20e_deeplesion.html")
    ours, others = config.split("Of MMDetection and MMEngine:")
    for name in ("PartialLabelLoss", "A3DMixer", "CTLesionDataset", "FROCMetric"):
        assert f">{name}</code>" in ours.split("Types of this package:")[1]
    assert "MaskRCNN" in others
    leaves = [path for path in ROOT.glob("configs/*/*.py") if path.parent.name != "_base_"]
    listed = article(site / "reference/configs.html")
    assert all(f"/{path.stem}.html" in listed for path in leaves)

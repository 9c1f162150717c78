"""What MkDocs does not do by itself: pages made from code and configs, and links that leave docs/ (see mkdocs.yml).

The pages of docs/ are read on a code host and on the site. Their links are those of the repository; here they become
links of the site, where a config is a page with its text and its types, and README.md is the index.

Nothing here imports torch: the API is read from the source, the commands from their parsers, the configs by MMEngine.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # beside docs/, and of the site
COPIED = ("CITATION.cff", "LICENSE")
TWIN_KEYS = ("twin", "twin_data", "twin_model", "twin_schedule", "twin_source")  # what only the miniature has

# Page -> title, and what it shows: objects, or all public names of a module.
API = {
    "detect": (
        "Detector, findings, volumes",
        ["mmpluld.Detector", "mmpluld.Findings", "mmpluld.CTVolume", "mmpluld.io"],
    ),
    "structures": ("Structures", ["mmpluld.structures"]),
    "evaluation": ("Evaluation", ["mmpluld.evaluation", "mmpluld.evaluation.functional"]),
    "postprocess": ("Postprocessing", ["mmpluld.postprocess"]),
    "mining": ("Mining", ["mmpluld.mining.strategies"]),
    "phantom": ("Phantom", ["mmpluld.phantom"]),
    "package": (
        "Registries, configs, errors",
        ["mmpluld.registry", "mmpluld.engine.config", "mmpluld.zoo", "mmpluld.errors"],
    ),
}
# Page -> title, and the rooms whose registered types it shows.
TYPES = {
    "models": ("Types of models", ("models",)),
    "data": ("Types of data", ("datasets",)),
    "runs": ("Types of runs and metrics", ("engine", "evaluation", "inference")),
}


@cache
def registered() -> dict[str, str]:
    """Name of every registered type -> its dotted path, as docs/reference.md lists them."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/reference.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            names, file = line.split("|")[1], re.search(r"`(mmpluld/\S+)\.py`", line)
            assert file, f"docs/reference.md names no file: {line}"
            found |= {name: f"{file[1].replace('/', '.')}.{name}" for name in re.findall(r"`(\w+)`", names)}
    return found


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    texts |= {_relative(path): path.read_text(encoding="utf-8") for path in ROOT.glob("configs/*/README.md")}
    texts |= {f"reference/api_{name}.md": _api(*entry) for name, entry in API.items()}
    texts |= {f"reference/types_{name}.md": _types(*entry) for name, entry in TYPES.items()}
    texts["reference/commands.md"] = _commands()
    texts |= _configs()
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    for path in [*map(ROOT.joinpath, COPIED), *ROOT.glob("checkpoints/*")]:
        if path.suffix != ".md":
            files.append(File.generated(config, _relative(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the repository's links into the site's, and names of types into links to their descriptions."""
    here = _in_repository(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target, hash_, anchor = match[1].partition("#")
        if not target or ":" in target:
            return match[0]
        place = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(here), target)))
        return f"]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{hash_}{anchor})"

    markdown = _indented(re.sub(r"\]\(([^)\s]+)\)", moved, markdown))
    if page.file.src_uri == "reference.md":
        markdown = re.sub(r"^\| `.*?\|", lambda row: _linked(row[0]), markdown, flags=re.MULTILINE)
    return markdown


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the roles of docstrings into links, where the site describes what they name."""

    def linked(match: re.Match[str]) -> str:
        path = match[1].removeprefix("~")
        text = _last(path) if match[1].startswith("~") else path
        return f'<autoref optional identifier="{path}"><code>{text}</code></autoref>'

    return re.sub(r":(?:class|func|meth|mod|data):<code>([^<]+)</code>", linked, html)


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _in_repository(place: str) -> str:
    """Where a page of the site lies in the repository, or would if it were a file."""
    return place if place in PAGES or place.startswith("configs/") else f"docs/{place}"


def _on_site(path: str) -> str:
    """Where a file of the repository lies on the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    return re.sub(r"^(configs/.*)\.py$", r"\1.md", path)


def _indented(markdown: str) -> str:
    """Give numbered items what MkDocs needs and CommonMark does not: four columns before what belongs to them, and an
    empty line behind that."""
    lines: list[str] = []
    inside = False
    for line in markdown.split("\n"):
        if line and not line.startswith(" "):
            inside = re.match(r"\d\. ", line) is not None
            if inside and lines and lines[-1].startswith(" "):
                lines.append("")
        lines.append(f" {line}" if inside and line.startswith("   ") else line)
    return "\n".join(lines)


def _linked(text: str) -> str:
    """``text`` with every `Name` of a registered type as a link to its description."""
    types = registered()
    return re.sub(r"`(\w+)`", lambda name: f"[{name[0]}][{types[name[1]]}]" if name[1] in types else name[0], text)


def _api(title: str, names: list[str]) -> str:
    """A page with the descriptions of objects, or of what modules name in ``__all__``."""
    parts = [f"# {title}\n"]
    for name in names:
        options = "{show_root_members_full_path: false}"
        if name.rpartition(".")[2][:1].islower():  # a module
            options = "{show_root_toc_entry: true, show_if_no_docstring: true}"
        parts.append(f"::: {name}\n    options: {options}\n")
    return "\n".join(parts)


def _types(title: str, rooms: tuple[str, ...]) -> str:
    paths = sorted((path for path in registered().values() if path.split(".")[1] in rooms), key=_last)
    return "\n".join([f"# {title}\n", *(f"::: {path}\n" for path in paths)])


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _commands() -> str:
    """What ``mmpluld COMMAND --help`` prints, of every command."""
    from mmpluld.cli.main import COMMANDS, command_parser

    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        helps = {name: command_parser(name).format_help() for name in COMMANDS}
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {} if width is None else {"COLUMNS": width}
    parts = [
        "# Commands\n",
        "What `mmpluld COMMAND --help` prints. Exit status: 0, 1 (failed) or 2 (bad input).\n",
    ]
    parts += [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps.items()]
    return "\n".join(parts)


def _configs() -> dict[str, str]:
    """A page for each config, and one that lists the types of this package that each names."""
    texts, rows = {}, []
    for path in sorted(ROOT.glob("configs/**/*.py")):
        text = path.read_text(encoding="utf-8")
        place = _relative(path)
        page = f"---\nsearch:\n  exclude: true\n---\n\n# {path.stem}\n\n`{place}`\n\n```python\n{text}```\n"
        if "_base_" not in path.parts:
            types = sorted(_types_of(path))
            ours = [f"[`{name}`][{registered()[name]}]" for name in types if name in registered()]
            others = ", ".join(f"`{name}`" for name in types if name not in registered())
            page += f"\nTypes of this package: {', '.join(ours) or 'none'}.\n\nOf MMDetection and MMEngine: {others}.\n"
            rows.append(f"| [`{path.parent.name}/{path.stem}`](../../{place}) | {', '.join(ours)} |")
        texts[_on_site(place)] = page
    head = [
        "# Configs and their types\n",
        "What each config names once its bases are merged, without its miniature. Its own page has the text, and the",
        "types of MMDetection and MMEngine too.\n",
        "| config | types of this package |\n|---|---|",
    ]
    return {**texts, "reference/configs.md": "\n".join([*head, *rows, ""])}


def _types_of(path: Path) -> set[str]:
    """Names that the config at ``path`` gives as a ``type``."""
    from mmengine.config import Config

    config = Config.fromfile(path, import_custom_modules=False)
    plain = {key: value for key, value in config.to_dict().items() if key not in TWIN_KEYS}
    return {name.rpartition(".")[2] for name in _named(plain)}


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _named(item)

"""What stands beside the code agrees with it: versions, workflows, hooks, forms."""

import configparser
import re
import tarfile
from pathlib import Path

import yaml

from mmpluld.version import __version__

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"


def read(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_one_version_everywhere(distributions):
    assert str(read("CITATION.cff")["version"]) == __version__
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [tuple(map(int, re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - .+", heading).groups())) for heading in headings]
    assert headings[0].startswith(f"{__version__} - ")
    assert versions == sorted(versions, reverse=True)
    assert all(re.search(r" - \d{4}-\d\d-\d\d$", heading) for heading in headings[1:])
    (sdist,) = distributions.glob(f"mmpluld-{__version__}.tar.gz")
    with tarfile.open(sdist) as archive:
        content = archive.extractfile(f"mmpluld-{__version__}/CITATION.cff").read()
    assert content == (ROOT / "CITATION.cff").read_bytes()


def test_what_breaks_stands_in_one_place():
    """Who upgrades reads the first section of a version, and need not search the others."""
    newest = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    _, *sections = re.split(r"^### ", newest, flags=re.MULTILINE)
    kinds = [section.partition("\n")[0] for section in sections]
    assert "Breaking" not in kinds[1:]
    assert newest.count("Breaking") == kinds.count("Breaking")


def test_papers_of_the_methods_can_be_cited():
    """Every page of configs says what to cite, and CITATION.cff has it."""
    listed = {paper["title"] for paper in read("CITATION.cff")["references"]}
    for page in sorted((ROOT / "configs").glob("*/README.md")):
        titles = re.findall(r"^  title={(.*)},$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert titles, page
        assert {re.sub("[{}]", "", title) for title in titles} - listed == set(), page


def test_workflow_runs_what_ci_runs():
    """The steps of .ci/run; the tests on every Python that the package says it takes."""
    workflow = read(".github/workflows/test.yml")
    suite = workflow["jobs"]["suite"]
    steps = [*workflow["jobs"]["check"]["steps"], *suite["steps"]]
    commands = [step["run"].removesuffix(" PYTHON=python") for step in steps if "run" in step]
    assert commands == re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert suite["strategy"]["matrix"]["python"] == declared
    (floor,) = [step for step in workflow["jobs"]["floors"]["steps"] if "setup-python" in step.get("uses", "")]
    assert floor["with"]["python-version"] == declared[0]


def test_long_tests_and_the_image_are_run_each_night():
    workflow, daily = read(".github/workflows/nightly.yml"), read(".github/workflows/test.yml")
    assert workflow[True].keys() == {"schedule", "workflow_dispatch"}  # YAML 1.1 takes `on` for true
    used, commands = (
        {step[key] for job in workflow["jobs"].values() for step in job["steps"] if key in step}
        for key in ("uses", "run")
    )
    assert used <= {step["uses"] for job in daily["jobs"].values() for step in job["steps"] if "uses" in step}
    assert "make test-all PYTHON=python" in commands
    assert re.search(r"^test-all:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (build,) = (command for command in commands if command.startswith("docker build "))
    (argument,) = re.findall(r"--build-arg (\w+)=", build)
    assert f"ARG {argument}=" in (ROOT / "Dockerfile").read_text()
    assert not any("push" in command for command in commands)


def test_scripts_of_workflow_and_hooks_exist():
    for job in read(".github/workflows/test.yml")["jobs"].values():
        for step in job["steps"]:
            for script in re.findall(r"\btools/\S+\.py", step.get("run", "")):
                assert (ROOT / script).is_file()
    requirements = (ROOT / "requirements-dev.txt").read_text()
    for hook in [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]:
        if hook["language"] == "system":  # of the environment of `make setup`
            tool = re.match(r"\.venv/bin/([\w-]+)", hook["entry"])[1]
            assert re.search(rf"^{tool}==", requirements, re.MULTILINE)
        else:
            assert all("==" in item for item in hook["additional_dependencies"])


def test_issue_forms_are_complete():
    names = set()
    for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            assert content == {"blank_issues_enabled": False}
            continue
        names.add(path.stem)
        assert {"name", "description", "body"} <= content.keys()
        fields = [item for item in content["body"] if item["type"] != "markdown"]
        assert len({item["id"] for item in fields}) == len(fields)
        assert all(item["attributes"]["label"] for item in fields)
        assert any(item.get("validations", {}).get("required") for item in fields)
    assert names == {"crash", "new_model_or_row", "question", "wrong_result"}


def test_links_of_forms_lead_somewhere():
    for path in [*GITHUB.rglob("*.yml"), *GITHUB.rglob("*.md")]:
        for target in re.findall(r"\.\./blob/HEAD/([^)\s]+)", path.read_text()):
            assert (ROOT / target).is_file(), f"{path.name} links to {target}"

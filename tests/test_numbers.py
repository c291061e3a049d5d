"""Every accuracy on the pages stands in a report under docs/reports, of a commit that is in the history."""

import csv
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
REPORTS = sorted(ROOT.glob("docs/reports/*/report.md"))
FIGURE = re.compile(r"(?<![\w.])[+−-]?(\d+\.\d+)(?:(?= to )|(?: ± (\d+\.\d+))?[ \u00a0](?:%|points))")


def figures(text: str) -> set[str]:
    """Percentages and points of a page, outside commands and code."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {number for pair in FIGURE.findall(prose) for number in pair if number}


def published() -> set[str]:
    """What others report, and what a sweep claims: no results of ours."""
    found = set()
    for path in ROOT.glob("conf/experiment/*.y*ml"):
        content = (
            path.read_text() if path.suffix == ".yml" else str(yaml.safe_load(path.read_text()).get("sweep"))
        )
        found |= set(re.findall(r"\d+\.\d+", content))
    return found


def measured() -> tuple[set[str], list[float]]:
    """Figures in the text of the reports and logs, and numbers in their tables."""
    texts = [path.read_text() for path in ROOT.glob("docs/reports/**/*") if path.suffix in (".md", ".log")]
    numbers = []
    for path in ROOT.glob("docs/reports/*/results.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                numbers += [100 * float(v) for k, v in row.items() if k.endswith("_acc") and v]
    return {number for text in texts for number in re.findall(r"\d+\.\d+", text)}, numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_accuracy_stands_in_a_report(page):
    texts, numbers = measured()
    known = texts | published()
    for figure in sorted(figures(page.read_text()) - known):
        digits = len(figure.partition(".")[2])
        assert any(f"{number:.{digits}f}" == figure for number in numbers), (
            f"{page.name}: {figure} has no report"
        )


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.parent.name)
def test_every_report_is_of_a_commit_in_the_history(report):
    if (
        subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        != "false"
    ):
        pytest.skip("a copy without its history")
    for commit in set(
        re.findall(r"(?<=at )[0-9a-f]{10}\b|(?<=commit \| )[0-9a-f]{10}\b", report.read_text())
    ):
        done = subprocess.run(
            ["git", "merge-base", "--is-ancestor", commit, "HEAD"], cwd=ROOT, capture_output=True
        )
        assert done.returncode == 0, f"{report}: {commit} is not in the history"

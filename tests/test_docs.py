"""What pages name is there: options of commands, files, links, and extras of the package."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from tessera.app.cli.main import _parser

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "web" / "docs").glob("*.md")),
]
NAMED_FILE = re.compile(r"`(?:python )?((?:benchmarks|tests|tools)/[\w/]+\.(?:py|json))")
NAMED_TEST = re.compile(r"`(test_\w+\.py)`")
EXTRA = re.compile(r"(?:tessera-nodes|\")\.?\[([a-z,]+)\]\"?")
WHOLE = [("docs/batch.md", "batch"), ("docs/serve.md", "serve")]
"""Pages that list every option of a command."""
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def options(command: str) -> set[str]:
    """The long options of a command, without what every one of them has."""
    actions = next(each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    named = {name for action in actions.choices[command]._actions for name in action.option_strings[:1]}
    return {name for name in named if name.startswith("--")} - {"--verbose"}


def synopses(page: Path, command: str) -> str:
    """What a page shows of a command, with the lines that go on below it."""
    found = re.findall(rf"^tessera {command} .*(?:\n +.*)*", page.read_text("utf-8"), re.MULTILINE)
    assert found, f"{page.name} does not show tessera {command}"
    return "\n".join(found)


@pytest.mark.parametrize(("page", "command"), WHOLE)
def test_a_page_lists_every_option_of_its_command(page: str, command: str) -> None:
    listed = set(re.findall(r"--[a-z-]+", synopses(ROOT / page, command)))
    assert listed - {"--verbose"} == options(command)


@pytest.mark.parametrize("command", ["run", "check", "batch", "nodes", "import", "params", "serve"])
def test_options_in_the_readme_are_options(command: str) -> None:
    assert set(re.findall(r"(?<!`)--[a-z-]+", synopses(ROOT / "README.md", command))) <= options(command) | {"--help"}


@pages
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pages
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    for named in NAMED_FILE.findall(text):
        assert (ROOT / named).is_file(), named
    for named in NAMED_TEST.findall(text):
        assert list((ROOT / "tests").rglob(named)), named


@pages
def test_extras_that_are_named_can_be_installed(page: Path) -> None:
    declared = (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")[2]
    known = set(re.findall(r"^(\w+) = \[", declared.partition("\n[")[0] or declared, re.MULTILINE))
    for named in EXTRA.findall(page.read_text("utf-8")):
        assert set(named.split(",")) <= known, named

"""Docs are held against the code, both ways; the house is held against its rules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from data.metrics import GAUGES, Metrics
from data.secscan.rescan import Outcome
from data.settings import setting_docs
from queues.__main__ import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OURS = ("RESCAN_", "PROXY_CACHE_AUTO_RESET_SECURITY_STATUS")
MAIN_PATH = [
    "workers/proxycacheblobworker.py",
    "data/completion.py",
    "queues/rescanqueue.py",
    "workers/rescanworker.py",
    "data/secscan/indexer.py",
]
MAY_IMPORT = {
    "data": {"data"},
    "queues": {"data", "queues"},
    "workers": {"data", "queues", "workers"},
}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def settings_table() -> dict[str, str]:
    """key -> meaning, from the README."""
    table = README.partition("<!-- settings")[2].partition("<!-- /settings -->")[0]
    return dict(re.findall(r"^\| `(\w+)` \| .*? \| (.+) \|$", table, re.MULTILINE))


def test_every_setting_of_ours_is_in_the_readme_with_its_meaning() -> None:
    documented = {d.key: d.meaning for d in setting_docs() if d.key.startswith(OURS)}
    assert settings_table() == documented


def test_each_file_of_the_main_path_names_the_next() -> None:
    for file, following in zip(MAIN_PATH, [*MAIN_PATH[1:], None], strict=True):
        docstring = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
        last = docstring.splitlines()[-1]
        if following is None:
            assert "Next:" not in docstring
        else:
            assert last == f"Next: {following}"


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_imports_go_one_way(folder: str) -> None:
    for path in python_files(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = {name.partition(".")[0] for name in names} & set(MAY_IMPORT)
            assert ours <= MAY_IMPORT[folder], path


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_every_file_says_what_it_is_and_has_one_subject(folder: str) -> None:
    for path in python_files(folder):
        source = path.read_text()
        assert ast.get_docstring(ast.parse(source)), path
        assert len(source.splitlines()) <= 350, path


def test_the_job_is_found_under_its_name() -> None:
    """`workers.rescanworker.rescan_manifest` is wire format: renaming it strands queued jobs."""
    from queues.rescanjob import RESCAN_FUNCTION
    from workers import rescanworker

    assert RESCAN_FUNCTION == "workers.rescanworker.rescan_manifest"
    assert rescanworker.rescan_manifest.__qualname__ == "rescan_manifest"


def test_every_linked_file_is_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "conf").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def table_between(mark: str) -> list[tuple[str, str]]:
    """The rows of a README table between `<!-- mark` and `<!-- /mark -->`."""
    part = README.partition(f"<!-- {mark}")[2].partition(f"<!-- /{mark} -->")[0]
    return re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE)


def test_every_metric_is_in_the_readme_with_its_meaning() -> None:
    counted = {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation
        for family in Metrics().registry.collect()
    }
    read = {gauge.name: gauge.help for gauge in GAUGES}
    assert dict(table_between("metrics")) == counted | read


def test_every_alert_has_its_paragraph_and_no_paragraph_is_without_an_alert() -> None:
    rules = yaml.safe_load((ROOT / "conf" / "alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    section = README.partition("### When an alert fires")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\*\*(\w+)\*\*:", section, re.MULTILINE)) == alerts


def test_every_command_is_in_the_readme_and_the_other_way_round() -> None:
    commands = {
        each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands
    }
    assert set(re.findall(r"python -m queues (\w+)", README)) <= commands
    table = README.partition("<!-- commands")[2].partition("<!-- /commands -->")[0]
    assert set(re.findall(r"^\| `(\w+)[^`]*` \|", table, re.MULTILINE)) == commands
    modules = set(re.findall(r"python -m (workers\.\w+)", README))
    assert modules
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def test_every_option_in_the_readme_exists() -> None:
    """Options are written as they are typed, beside the command that takes them."""
    named = re.findall(r"python -m queues (\w+)([^\n|]*)", README)
    table = README.partition("<!-- commands")[2].partition("<!-- /commands -->")[0]
    named += re.findall(r"^\| `(\w+)[^`]*` \|(.*)$", table, re.MULTILINE)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    seen = set()
    for command, rest in named:
        options = {option for each in group.commands[command].params for option in each.opts}
        wanted = set(re.findall(r"--[a-z][a-z-]*", rest.partition("#")[0]))
        assert wanted <= options, command
        seen |= wanted
    assert {"--wait", "--all-failed", "--dry-run"} <= seen


def test_every_promise_names_a_test_that_exists() -> None:
    section = README.partition("## What it survives")[2].partition("\n## ")[0]
    promised = set(re.findall(r"`(test_\w+)`", section))
    written = {
        name
        for path in python_files("tests")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert promised
    assert promised <= written


def test_every_outcome_is_in_the_readme() -> None:
    table = README.partition("| outcome | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {
        each.value for each in Outcome
    }


def test_every_file_that_an_operator_deploys_is_in_the_readme_of_conf() -> None:
    page = (ROOT / "conf" / "README.md").read_text()
    for path in (ROOT / "conf").iterdir():
        assert path.name in page or path.name in README, path.name

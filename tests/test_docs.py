"""The documentation is a contract: every command and key is in it, and nothing that is not."""

import re
from pathlib import Path

import pytest
import typer

from flows.cli import app
from flows.reference import PAGE, table, with_table
from tasks.params import Settings, known_keys

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
CLI = typer.main.get_command(app)
# Every command by its words: "run", "data diff". A group is no command of its own.
COMMANDS = {
    " ".join(words): command
    for name, top in CLI.commands.items()
    for words, command in (
        [((name, below), command) for below, command in top.commands.items()]
        if hasattr(top, "commands")
        else [((name,), top)]
    )
}
GROUPS = {name for name, top in CLI.commands.items() if hasattr(top, "commands")}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

# Code as a reader would type it: `inline`, or a line of a block.
_CODE = re.compile(r"```[^\n]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def code_lines(text):
    for block, inline in _CODE.findall(text):
        for line in (block or inline).splitlines():
            yield line.split("  #")[0].strip()


def mentions(program, text):
    """The words after each `program …`, up to the end of the command."""
    for line in code_lines(text):
        for command in re.split(r"\||&&|;|>", line):
            words = command.split()
            while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                words = words[1:]
            if words and words[0].removeprefix(".venv/bin/") == program:
                yield words[1:]


def options_of(command):
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def command_of(words):
    """The command that a line starts with; a group alone or with an unknown word is itself."""
    named = [word for word in words if not word.startswith("-")]
    if named and named[0] in GROUPS:
        return " ".join(named[:2])
    return named[0] if named else None


def test_every_command_has_its_section_with_an_example():
    sections = dict(re.findall(r"^## ([\w -]+)\n(.*?)(?=^## |\Z)", _read("cli.md"), re.M | re.S))
    assert set(sections) == set(COMMANDS)
    for name, text in sections.items():
        assert any(command_of(words) == name for words in mentions("visionloop", text)), name


def test_every_option_of_a_command_is_documented():
    text = _read("cli.md")
    shown = {
        name: {opt for p in command.params for opt in p.opts if opt.startswith("--")}
        for name, command in COMMANDS.items()
    }
    missing = [f"{n} {o}" for n, options in shown.items() for o in options if o not in text]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_and_options_exist(page):
    for words in mentions("visionloop", page.read_text()):
        name = command_of(words)
        assert name in {*COMMANDS, *GROUPS, "COMMAND", "…", None}, f"visionloop {' '.join(words)}"
        known = options_of(COMMANDS[name]) if name in COMMANDS else options_of(CLI)
        used = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert used <= known, f"visionloop {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_make_targets_exist(page):
    for words in mentions("make", page.read_text()):
        named = {word for word in words if re.fullmatch(r"[a-z]+", word)}
        assert named <= TARGETS, f"make {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_parameters_exist(page):
    sections = {key for key in known_keys() if "." not in key}
    parents = {key.rsplit(".", 1)[0] for key in known_keys()}
    for line in code_lines(page.read_text()):
        for key in re.findall(r"--set ([\w.]+)=", line):
            assert key in known_keys()
        key = re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", line) and not line.endswith(".json")
        if key and line.split(".")[0] in sections:
            assert line in known_keys() or line in parents, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_table_of_parameters_is_that_of_the_schema():
    page = PAGE.read_text()
    assert with_table(page) == page, "run `python -m flows.reference`"
    for key in known_keys():
        leaf = not any(other.startswith(f"{key}.") for other in known_keys())
        assert not leaf or f"| `{key}` |" in page, key


def test_every_parameter_says_what_it_means():
    assert [line for line in table().splitlines() if re.search(r"\|\s*\|$", line)] == []


def test_every_environment_variable_is_documented():
    page = PAGE.read_text()
    for name, field in Settings.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [f"VISIONLOOP_{name.upper()}"])
        for variable in choices:
            assert f"`{variable}`" in page, variable


def _read(name):
    return (ROOT / "docs" / name).read_text()

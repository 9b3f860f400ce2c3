"""Every `graftline ...` that a document or a message shows is one that the command takes.

Lines of code blocks are parsed whole, by the command's own parser. What is in a sentence or a
message may be only the name of a command, or a part of one: its command and options must exist.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from graftline_pipelines.cli.main import app
from graftline_pipelines.cli.panels import PANELS

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path
    for folder in ("components", "pipelines", "examples", "k8s")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".yaml", ".sh", ".html") and path.is_file()
]
COMMAND: Any = typer.main.get_command(app)
ENDS = re.compile(r"\s(?:\||&&|;|>|2>|#)\s?|\s#")


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Commands in code blocks: indented by four, or fenced; a backslash continues a line."""
    fenced, joined, start = False, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("```"):
            fenced = not fenced
            continue
        if not (fenced or line.startswith("    ")):
            joined = ""
            continue
        if joined:
            joined = f"{joined} {line.strip()}"
        elif match := re.match(r"\s*(?:\$ )?((?:[A-Z_]+=\S+ )*graftline(?: .*)?)$", line):
            joined, start = match.group(1), number
        else:
            continue
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip()
            continue
        yield start, re.sub(r"^(?:[A-Z_]+=\S+ )*", "", joined)
        joined = ""


def rows_of(text: str) -> Iterator[tuple[int, str]]:
    """Commands in the first column of a table; each is one that can be typed as it stands."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("| `graftline "):
            first = line.split(" | ")[0]
            yield from ((number, words) for words in re.findall(r"`(graftline [^`]+)`", first))


def words_of(line: str) -> list[str]:
    return shlex.split(ENDS.split(line, maxsplit=1)[0])[1:]


def find(words: list[str]) -> tuple[Any, Any, list[str]]:
    """The command that the words name, its context, and the rest of the words."""
    command, rest = COMMAND, list(words)
    context = command.make_context("graftline", [], resilient_parsing=True)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest[0]]
        context = command.make_context(rest[0], [], parent=context, resilient_parsing=True)
        rest = rest[1:]
    return command, context, rest


def problem_of_line(line: str) -> str | None:
    """What the command's parser says of a whole line."""
    words = words_of(line)
    command, context, rest = find(words)
    if command is COMMAND:
        return None if not rest or rest[0] in ("--help", "-h", "--version") else "no such command"
    if hasattr(command, "commands"):
        return f"{rest[:1]} is no command of {command.name}"
    try:
        command.make_context(command.name, rest, parent=context.parent)
    except typer.Exit:
        return None  # --help
    except TyperException as error:
        return error.format_message()
    return None


def problem_of_words(text: str) -> str | None:
    """What is wrong with a command that a sentence names."""
    words = text.split()[1:]
    command, _, rest = find(words)
    if command is COMMAND and rest and re.fullmatch(r"[a-z][a-z-]+", rest[0]):
        return f"there is no command {rest[0]}"
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    for word in rest:
        name = word.partition("=")[0].rstrip(".,;:)")
        if name.startswith("--") and name not in known and "|" not in name and "{" not in name:
            return f"{command.name} has no option {name}"
    return None


def named_in(text: str) -> Iterator[str]:
    """Commands within backticks, also where a line ends in between or a string is joined."""
    joined = re.sub(r'"\s*\n\s*f?"', "", text)
    for match in re.finditer(r"`(graftline [^`]+)`", joined):
        yield re.sub(r"\s*\n[\s>#*]*", " ", match.group(1))


def test_every_command_has_its_place_in_the_help() -> None:
    placed = [name for names in PANELS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert set(COMMAND.commands) <= set(placed)
    for name, command in COMMAND.commands.items():
        assert command.rich_help_panel in PANELS, name
        first = command.help.strip().partition("\n\n")[0]
        assert first.endswith(".") and first[0].isupper() and len(" ".join(first.split())) <= 100


def test_every_option_says_what_it_is() -> None:
    def check(command: Any, path: str) -> None:
        for name, one in getattr(command, "commands", {}).items():
            check(one, f"{path} {name}")
        for param in command.params:
            if param.name not in ("help", "install_completion", "show_completion"):
                assert getattr(param, "help", None), f"{path}: {param.name} has no help"

    check(COMMAND, "graftline")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_of_a_document(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    wrong = [
        f"{path.name}:{number}: {line}: {problem}"
        for number, line in (*lines_of(text), *rows_of(text))
        if (problem := problem_of_line(line))
    ]
    wrong += [
        f"{path.name}: `{words}`: {problem}"
        for words in named_in(text)
        if (problem := problem_of_words(words))
    ]
    assert wrong == []


def test_commands_that_messages_name() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: `{words}`: {problem}"
        for path in SOURCES
        for words in named_in(path.read_text(encoding="utf-8"))
        if (problem := problem_of_words(words))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("graftline run a.yaml --set seed=1", True),
        ("graftline run", False),
        ("graftline run a.yaml --nope", False),
        ("graftline rnu a.yaml", False),
        ("graftline features ls", True),
        ("graftline features lss", False),
        ("graftline runs --limit many", False),
        ("graftline schedule apply a.yaml | tee x", True),
        ("graftline --help", True),
        ("graftline predict m.onnx 'a/*.png' --out a.csv   # a comment", True),
    ],
)
def test_the_check_itself(line: str, right: bool) -> None:
    assert (problem_of_line(line) is None) == right


def test_the_check_finds_commands_in_a_document() -> None:
    text = (
        "Words.\n\n    $ graftline run a \\\n        --nope\n    other\n\n```sh\ngraftline x\n```\n"
    )
    assert list(lines_of(text)) == [(3, "graftline run a --nope"), (8, "graftline x")]
    assert list(named_in('"See `graftline "\n  f"data x`."')) == ["graftline data x"]
    assert problem_of_words("graftline data --nope") and not problem_of_words(
        "graftline data --html"
    )


def test_no_help_breaks_a_line_where_our_sources_do() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    helps = [command.help for group in groups if group for command in group.registered_commands]
    assert len(helps) > 30
    assert all(helps)
    for text in helps:
        for paragraph in str(text).split("\n\n"):
            assert "\n" not in paragraph

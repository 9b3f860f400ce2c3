"""Lines on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from graftline_pipelines.local.screen import counted, show_indented, show_rows

ROWS = [("store", "here"), ("data.source", "[red]Error: no \\[a] " + "x y " * 30 + "\nWhy: so.[/]")]


def shown(*, width: int, terminal: bool) -> list[str]:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system=None, _environ={}
    )
    show_rows(ROWS, console)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_piped_lines_are_whole() -> None:
    assert shown(width=40, terminal=False) == [
        "  store        here",
        "  data.source  Error: no [a] " + ("x y " * 30).rstrip(),
        "               Why: so.",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_lines_on_a_terminal_stand_below_each_other(width: int) -> None:
    lines = [line for line in shown(width=width, terminal=True) if line]
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith("  data.source    Error: no [a] x y")
    assert all(line.startswith(" " * 17) and line[17] != " " for line in lines[2:])


def test_numbers_and_nouns() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1000)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,000 images",
    ]
    assert counted(1, "class", "classes") == "1 class"
    assert counted(2, "class", "classes") == "2 classes"


def test_indented_lines_stay_indented_and_in_a_pipe_whole() -> None:
    for terminal, expected in ((False, 1), (True, 3)):
        stream = io.StringIO()
        console = Console(
            file=stream, width=40, force_terminal=terminal, color_system=None, _environ={}
        )
        show_indented(["word " * 18], console)
        lines = stream.getvalue().splitlines()
        assert len(lines) == expected
        assert all(line.startswith("  word") for line in lines)

"""Lines on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from graftline_pipelines.local.screen import (
    Screen,
    counted,
    show_indented,
    show_rows,
    show_table,
    size_of,
)

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


def printed(*, width: int, terminal: bool, table: bool = False) -> list[str]:
    stream = io.StringIO()
    console = Screen(
        file=stream, width=width, force_terminal=terminal, color_system=None, _environ={}
    )
    if table:
        rows = [(f"run-{number}-of-a-long-name", str(number), "word " * 8) for number in (1, 20)]
        show_table(("Run", "Seconds", "Outcome"), rows, console, right=("Seconds",))
    else:
        console.print(f"Error: {'word ' * 12}\n  indented: `a command with blanks` {'w' * 50}")
    return stream.getvalue().splitlines()


def test_a_line_breaks_between_words_and_hangs_and_a_command_stays_whole() -> None:
    assert printed(width=40, terminal=True) == [
        "Error: word word word word word word",
        "  word word word word word word",
        "  indented: `a command with blanks`",
        "    " + "w" * 50,
    ]
    assert len(printed(width=40, terminal=False)) == 2


def test_a_command_to_be_copied_is_one_line_for_the_terminal_to_wrap() -> None:
    stream = io.StringIO()
    console = Screen(file=stream, width=20, force_terminal=True, color_system=None, _environ={})
    console.print("  graftline predict model.onnx a.jpg", soft_wrap=True)
    assert stream.getvalue() == "  graftline predict model.onnx a.jpg\n"


def test_a_table_that_does_not_fit_goes_row_by_row_and_no_name_is_cut() -> None:
    wide = printed(width=200, terminal=True, table=True)
    assert wide == printed(width=20, terminal=False, table=True) and len(wide) == 3
    assert wide[1].startswith("run-1-of-a-long-name         1  word")
    narrow = printed(width=40, terminal=True, table=True)
    assert narrow[:2] == ["run-1-of-a-long-name", "  Seconds: 1; Outcome: word word word"]
    assert all(len(line) <= 40 for line in narrow) and narrow[3] == "run-20-of-a-long-name"


def test_sizes_have_the_unit_that_suits_them() -> None:
    assert [size_of(size) for size in (0, 900, 3 * 2**20, 5.5 * 2**40)] == [
        "0 B",
        "900 B",
        "3.0 MiB",
        "5.5 TiB",
    ]

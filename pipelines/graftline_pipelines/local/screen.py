"""How lines look on a terminal, and in a pipe: there a line is whole, however long."""

import re
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from graftline.stats.wording import counted as counted

HANGING = 2
# What a command or a quoted name is made of is not torn apart: it can be copied from the screen.
_WORD = re.compile(r"(?:`[^`\n]*`|\S)+\s*")


class Screen(Console):
    """A console of whole lines in a pipe, and on a terminal of lines broken between words."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what follows of a long line hangs under it, unless ``soft_wrap`` is asked for.

        A command that is to be copied asks for it: the terminal joins its lines again.
        """
        only = objects[0] if len(objects) == 1 else None
        if not isinstance(only, str | Text):
            super().print(*objects, **options)
            return
        if self.is_terminal and not options.get("soft_wrap"):
            if isinstance(only, str):
                wanted = {key: options.pop(key, None) for key in ("markup", "highlight")}
                only = self.render_str(only, **wanted)
            only = hanging(only, self.width)
        super().print(only, **{**options, "soft_wrap": True})


def say(text: str, *, stderr: bool = False) -> None:
    """Print a sentence as it is, without markup."""
    Screen(stderr=stderr, markup=False, highlight=False).print(text)


def show_error(text: str) -> None:
    """Print what went wrong on stderr."""
    Screen(stderr=True).print(Text("Error: ", "bold red") + Text(text))


def hanging(text: Text, width: int, under: int = HANGING) -> Text:
    """The same text in lines of at most this width, unless a word is wider.

    Args:
        text: One or several lines.
        width: Of the terminal.
        under: How far what follows of a line is indented more than its start.
    """
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        plain = line.plain
        used = lead = len(plain) - len(plain.lstrip())
        breaks = []
        for word in _WORD.finditer(plain):
            if used > lead and used + cell_len(word[0].rstrip()) > width:
                breaks.append(word.start())
                used = lead + under
            used += cell_len(word[0])
        first, *rest = line.divide(breaks)
        lines.append(first)
        lines += [Text(" " * (lead + under)) + part for part in rest]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def size_of(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def show_rows(rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print names with their texts: a table on a terminal, whole lines elsewhere.

    Args:
        rows: Name and text with markup; a text may have several lines.
        console: Where to print.
    """
    if console.is_terminal:
        table = Table(show_header=False, box=None, padding=(0, 2), title="", title_justify="left")
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(name, text)
        console.print(table)
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        for number, line in enumerate(Text.from_markup(text).split("\n", allow_blank=True)):
            shown = Text(f"  {'' if number else name:<{width}}  ") + line
            console.print(shown, soft_wrap=True, highlight=False)


def show_indented(lines: Sequence[str], console: Console) -> None:
    """Print lines two columns in, on a terminal what follows of a long one too."""
    for line in lines:
        if console.is_terminal:
            console.print(Padding(line, (0, 0, 0, 2)))
        else:
            console.print(f"  {line}", soft_wrap=True)


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    right: Sequence[str] = (),
    bold: Sequence[int] = (),
) -> None:
    """Print a table with no cell cut or torn; where a terminal is too narrow, row by row.

    Args:
        headings: Of the columns; the first one says what a row is.
        rows: Cells as plain text.
        console: Where to print.
        right: Headings of columns of numbers.
        bold: Numbers of the rows to print in bold.
    """
    cells = [tuple(headings), *map(tuple, rows)]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(headings))]
    if console.is_terminal and sum(widths) + 2 * (len(widths) - 1) > console.width:
        for number, (name, *rest) in enumerate(rows):
            said = [
                f"{head}: {cell}" for head, cell in zip(headings[1:], rest, strict=True) if cell
            ]
            console.print(Text(name, "bold" if number in bold else ""), soft_wrap=True)
            console.print(
                hanging(Text(f"  {'; '.join(said)}"), console.width, under=0), soft_wrap=True
            )
        return
    for number, row in enumerate(cells, -1):
        parts = [
            " " * (width - cell_len(cell)) + cell
            if head in right
            else cell + " " * (width - cell_len(cell))
            for head, cell, width in zip(headings, row, widths, strict=True)
        ]
        style = "bold" if number == -1 or number in bold else ""
        console.print(Text("  ".join(parts).rstrip(), style), soft_wrap=True)

"""How lines look on a terminal, and in a pipe: there a line is whole, however long."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


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

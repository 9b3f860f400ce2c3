"""What was found out before a run: facts, notes, and problems that would stop it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from graftline.errors import ConfigurationError, GraftlineError
from graftline_pipelines.local.screen import counted, show_rows


@dataclass
class Preflight:
    """Facts and notes for a person to read, and problems that would stop a run.

    Attributes:
        facts: Answers by key.
        notes: What a person should know, with its key.
        problems: What would stop a run, with its key.
        unasked: What was not asked since a cheaper question found a problem already.
        asking: Is told the key of each question before it is asked.
    """

    facts: dict[str, str] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, GraftlineError]] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    asking: Callable[[str], None] = lambda _: None

    def look(self, key: str, question: Callable[[], str]) -> None:
        """Ask one question; its answer is a fact, its error a problem."""
        self.asking(key)
        try:
            answer = question()
        except GraftlineError as error:
            self.problems.append((key, error))
        else:
            if answer:
                self.facts[key] = answer

    def take(self, other: "Preflight") -> None:
        """Add what was found elsewhere."""
        self.facts.update(other.facts)
        self.notes += other.notes
        self.problems += other.problems

    def failed(self, key: str) -> bool:
        """Whether a question found a problem."""
        return any(name == key for name, _ in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "ok": not self.problems,
            "facts": self.facts,
            "notes": [{"key": key, "what": what} for key, what in self.notes],
            "problems": [
                {"key": key, "what": error.what, "why": error.why, "fix": error.fix}
                for key, error in self.problems
            ],
            "not_checked": self.unasked,
        }


class PreflightError(ConfigurationError):
    """All that would stop the run."""

    def __init__(self, problems: list[tuple[str, GraftlineError]]) -> None:
        self.problems = problems
        count = f"{len(problems)} problems stop" if len(problems) > 1 else "A problem stops"
        shown = "\n".join(f"{key}: {text}" for key, text in _each_reason_once(problems))
        super().__init__(f"{count} this run before it starts:\n{shown}")


def _each_reason_once(problems: list[tuple[str, GraftlineError]]) -> list[tuple[str, str]]:
    """What each problem says; one with the reason of another names that one instead."""
    shown: list[tuple[str, str]] = []
    first: dict[tuple[str | None, str | None], str] = {}
    for key, error in problems:
        reason = (error.why, error.fix)
        before = first.setdefault(reason, key) if error.why else key
        shown.append((key, str(error) if before == key else f"{error.what}\nWhy: as {before}."))
    return shown


def show(found: Preflight, console: Console) -> None:
    """Print what was found for a person."""
    rows = [(escape(key), escape(text)) for key, text in found.facts.items()]
    rows += [(escape(key), f"[yellow]Note: {escape(text)}[/]") for key, text in found.notes]
    shown = _each_reason_once(found.problems)
    rows += [(escape(key), f"[red]Error: {escape(text)}[/]") for key, text in shown]
    show_rows(rows, console)
    if found.problems:
        problems = counted(len(found.problems), "problem")
        console.print(f"[red]{problems} would stop a run.[/]", highlight=False)
        if found.unasked:
            show_rows([("Not checked yet", ", ".join(found.unasked))], console)
    else:
        console.print("[green]Ready to run.[/]")


def show_notes(found: Preflight, console: Console) -> None:
    """Print only what a person should know before a run goes on."""
    for key, text in found.notes:
        said = f"[yellow]Note:[/] {escape(key)}: {escape(text)}"
        console.print(said, highlight=False, soft_wrap=not console.is_terminal)

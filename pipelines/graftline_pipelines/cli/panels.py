"""The order of the commands in ``graftline --help``: what a new user needs comes first."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer

from graftline_pipelines.cli.plain_help import PlainCommand

PANELS = {
    "Train on this machine": ("init", "check", "run", "data"),
    "Look at runs": ("runs", "open", "compare", "suspects"),
    "Use a model": ("predict", "try", "verify", "serve-manifest"),
    "Champions": ("history", "rollback", "retrain"),
    "Networks and features": ("backbones", "mirror-weights", "features", "gc", "race", "decisions"),
    "Kubeflow Pipelines": (
        "submit",
        "submit-predict",
        "follow",
        "logs",
        "stop",
        "schedule",
        "trigger",
        "compile",
        "cluster",
    ),
    "When something is wrong": ("doctor", "relocate"),
}
_PLACES = {
    name: (number, place)
    for number, names in enumerate(PANELS.values())
    for place, name in enumerate(names)
}


def arrange(app: typer.Typer) -> None:
    """Put each command into its panel, in the panels' order, with a plain help."""
    titles = list(PANELS)
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        command.name = name
        command.help = command.help or _described(command.callback)
        command.cls = PlainCommand
        if name in _PLACES:
            command.rich_help_panel = titles[_PLACES[name][0]]
    for group in app.registered_groups:
        if not isinstance(group.name, str):  # it is the sub-application that has the name
            group.name = group.typer_instance.info.name if group.typer_instance else None
        for command in group.typer_instance.registered_commands if group.typer_instance else ():
            command.help = command.help or _described(command.callback)
            command.cls = PlainCommand
        if group.name in _PLACES:
            group.rich_help_panel = titles[_PLACES[group.name][0]]
    last = (len(titles), 0)
    app.registered_commands.sort(key=lambda command: _PLACES.get(command.name or "", last))
    app.registered_groups.sort(key=lambda group: _PLACES.get(str(group.name), last))


def _described(callback: Callable[..., Any] | None) -> str | None:
    """A docstring with each paragraph on one line: the terminal's width breaks it, not ours."""
    text = inspect.getdoc(callback) if callback is not None else None
    return text and re.sub(r"(?<=\S)\n(?=[^\s-])", " ", text)

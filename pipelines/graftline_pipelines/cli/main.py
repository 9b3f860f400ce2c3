"""The command ``graftline``."""

import errno
import gc
import io
import re
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from graftline import __version__
from graftline.errors import ConfigurationError, GraftlineError, UnknownBackbone
from graftline.machine import ensure_home
from graftline.redaction import guard_process
from graftline_pipelines.cli.commands import (
    backbones,
    cluster,
    controller,
    data,
    decisions,
    doctor,
    features,
    init,
    local_runs,
    model,
    predict,
    race,
    relocate,
    retrain,
    run,
    schedule,
    suspects,
    try_model,
)
from graftline_pipelines.cli.panels import arrange
from graftline_pipelines.cli.plain_help import PlainGroup
from graftline_pipelines.cli.stopping import (
    STOPPED,
    leave_threads,
    listen_to_sigterm,
    say_stopped,
)

MISTAKES = (ConfigurationError, UnknownBackbone)  # of the user's: exit code 2
LONGEST_NAME = 100  # that is shown whole where it is too long
IN_WORDS = {  # what pydantic says of an option's value
    r"Input should be a valid (?:integer|number), unable to parse .*": "it has to be a number",
    r"Input should be greater than or equal to": "it has to be at least",
    r"Input should be less than or equal to": "it has to be at most",
}

app = typer.Typer(
    name="graftline",
    cls=PlainGroup,
    help="Labelled images to a promoted ONNX classifier, here or on Kubeflow Pipelines.\n\n"
    "Begin with `graftline init FOLDER`, then `graftline run` on the file that it writes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"graftline {__version__}")
        raise typer.Exit


for group in (
    init,
    run,
    data,
    decisions,
    suspects,
    predict,
    try_model,
    model,
    race,
    backbones,
    features,
    cluster,
    schedule,
    controller,
    retrain,
    relocate,
    local_runs,
    doctor,
):
    group.register(app)
arrange(app)


def main() -> None:
    """Run the command: 0 done, 1 failed, 2 a user's mistake, 130 and 143 stopped."""
    gc.set_threshold(50_000)  # imports alone ran it thousands of times
    _show_what_cannot_be_shown()
    guard_process()
    ensure_home()
    listen_to_sigterm()
    try:
        _refuse_empty(sys.argv[1:])
        code = app(prog_name="graftline", standalone_mode=False)
    except TyperException as error:
        _show_usage(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
    except GraftlineError as error:
        _show(error)
        sys.exit(2 if isinstance(error, MISTAKES) else 1)
    except Exception as error:
        from graftline.steps.runtime import system_error

        refused = system_error(error) or _of_a_name(error)
        if refused is None:
            raise
        _show(refused)
        sys.exit(2 if isinstance(refused, MISTAKES) else 1)
    if code == STOPPED:
        code = say_stopped()
        if sys._getframe(1).f_back is None:  # else another program calls, and goes on
            leave_threads(code)
    gc.freeze()  # the process ends: nothing is looked through once more
    sys.exit(code if isinstance(code, int) else 0)


def _show_what_cannot_be_shown() -> None:
    """Escape what a terminal has no letters for, and names of files that are no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_usage(error: TyperException) -> None:
    """One line on what is wrong with the command, and where the options are."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
        return  # and has printed the help already
    command = context.command_path if context else _named_in(sys.argv[1:])
    text = " ".join(error.format_message().split())
    extra = re.fullmatch(r"Got unexpected extra argument\(s\) \((.*)\)", text)
    if extra:
        text = f"{extra[1]!r} is more than this command takes"
    for pattern, words in IN_WORDS.items():
        text = re.sub(pattern, words, text)
    end = "" if text.endswith((".", "?")) else "."
    fix = f"`{command} --help` shows what it takes."
    if text.endswith("is not readable."):
        fix = "Give this user permission, or choose another path."
    _show(ConfigurationError(f"{text}{end}", fix=fix))


def _of_a_name(error: Exception) -> GraftlineError | None:
    """The user's error for a path that no file can have, wherever it was met; None for others."""
    fixes = {
        errno.ENAMETOOLONG: "Give a shorter name.",
        errno.EISDIR: "Name a file in it.",
        errno.EEXIST: "It is a file, where a folder is wanted: choose another path.",
        errno.ENOTDIR: "A part of it is a file, where a folder is wanted: choose another path.",
        errno.ELOOP: "Links there lead in a circle: choose another path.",
    }
    if not isinstance(error, OSError) or error.filename is None or error.errno not in fixes:
        return None
    name = str(error.filename2 or error.filename)  # the second is where a file was to be moved
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    why = f"{error.strerror}."
    return ConfigurationError(f"{shown} cannot be used.", why=why, fix=fixes[error.errno])


def _refuse_empty(words: list[str]) -> None:
    """An unset variable of the shell, in quotes: as a path it would be the working folder."""
    if any(not word.strip() for word in words):
        place = next(number for number, word in enumerate(words, 1) if not word.strip())
        raise ConfigurationError(
            f"Argument {place} of graftline is empty.",
            why="It may be a variable of the shell that is not set.",
            fix=f"`{_named_in(words)} --help` shows what it takes.",
        )


def _named_in(words: list[str]) -> str:
    """The command that the words begin with: not every error of the parser says it."""
    command: Any = typer.main.get_command(app)
    path = ["graftline"]
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        path.append(word)
    return " ".join(path)


def _show(error: GraftlineError) -> None:
    from graftline_pipelines.local.screen import show_error

    show_error(str(error))

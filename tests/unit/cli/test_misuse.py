"""Misuse of each command: one line on what is wrong, one on what to do, and exit code 2."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from graftline_pipelines.cli.main import app, main

COMMAND: Any = typer.main.get_command(app)


def leaves(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [leaf for name, one in command.commands.items() for leaf in leaves(one, (*path, name))]


LEAVES = leaves(COMMAND)


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["graftline", *words])
    monkeypatch.setattr("graftline_pipelines.cli.main.guard_process", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=["-".join(path) for path, _ in LEAVES])
def test_unknown_option_and_missing_argument(
    path: tuple[str, ...],
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = [("--no-such-option",)]
    if any(p.param_type_name == "argument" and p.required for p in command.params):
        cases.append(())
    for words in cases:
        code, out, err = call(monkeypatch, capsys, *path, *words)
        lines = err.splitlines()
        assert (code, out) == (2, "") and len(lines) == 2, err
        assert lines[0].startswith("Error: ") and lines[0].endswith((".", "?"))
        assert lines[1] == f"What to do: `graftline {' '.join(path)} --help` shows what it takes."


@pytest.mark.parametrize("words", [(), ("--help",), ("run", "--help"), ("features",)])
def test_help_is_no_mistake_to_read(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, *words)
    assert out.count("Usage: graftline") == 1 and err == ""
    assert code == (0 if "--help" in words else 2)


def test_an_option_without_its_value_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "schedule", "apply", "run.yaml", "--set")
    assert code == 2 and "`graftline schedule apply --help` shows what it takes." in err


def test_a_typo_is_answered_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "histroy")
    assert code == 2 and "Did you mean 'history'" in err


@pytest.mark.parametrize(
    ("words", "interrupted", "said"),
    [
        (("runs", "--local"), "local.runs.list_runs", "Stopped.\n"),
        (("run", "x.yaml"), "runfile.load.load", "Run the same command again to continue.\n"),
        (("run", "x.yaml", "--fresh"), "runfile.load.load", "Run it again, without --fresh, to"),
        (("follow", "x"), "cluster.runs.monitor.follow", ""),  # has said that the run goes on
    ],
)
def test_ctrl_c_says_how_to_go_on_where_something_is_kept(
    words: tuple[str, ...],
    interrupted: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = SimpleNamespace(run_id="x-1", display_name="x")
    server = SimpleNamespace(find_run=lambda _: run, link=lambda _: "http://kfp/x-1")
    monkeypatch.setattr("graftline_pipelines.cli.commands.cluster.connect", lambda *_, **__: server)
    monkeypatch.setattr(f"graftline_pipelines.{interrupted}", interrupt)
    code, out, err = call(monkeypatch, capsys, *words)
    assert code == 130 and said in err
    if words[0] == "follow":
        assert "the run goes on" in out and err == ""


def test_a_run_file_alone_shows_its_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text("name: pets\ndata: {source: pets}\nstore: store\n")
    code, out, _ = call(monkeypatch, capsys, "schedule", str(run_file))
    assert code == 0 and "has no schedule" in out and "cron: 0 30 2 * * *" in out
    cron = ("--set", "schedule.cron=0 30 2 * * *")
    code, out, _ = call(monkeypatch, capsys, "schedule", str(run_file), *cron)
    assert code == 0 and "retrain at 0 30 2 * * * in UTC; next at 2" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "{tmp}", "latest"), "is a folder, not a model"),
        (("predict", "latest", ""), "Argument 3 of graftline is empty"),  # "$UNSET"
        (("verify", "latest", "--images", " "), "Argument 4 of graftline is empty"),
        (("verify", "{tmp}", "--images", "{tmp}"), "is a folder, not a model"),
        (("init", "{tmp}/run.yaml"), "is a run file by its name"),
        (("init", "{tmp}/nothing"), "nothing does not exist"),
        (("backbones", "nosuchnet"), "No backbone is called 'nosuchnet'"),
        (("mirror-weights", "resnet51", "--store", "s"), "No backbone is called 'resnet51'"),
        (("init", "{tmp}", "--name", "Big Cats"), "'Big Cats' cannot be the name of a run file"),
        (("predict", "nothing", "x.png"), "no such file, and no runs in .graftline/runs"),
        (("try", "nothing"), "give `latest` or the name of a run"),
        (("predict", "models:x", "x.png"), "Write models:/NAME@champion"),
        (("predict", "latest", "x.png", "--top", "x"), "'--top': it has to be a number."),
        (("predict", "latest", "x.png", "--top", "0"), "'--top': it has to be at least 1."),
        (("try", "latest", "--port", "80000"), "'--port': it has to be at most 65535."),
    ],
)
def test_swapped_arguments_and_wrong_values_are_named(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = (word.replace("{tmp}", str(tmp_path)) for word in words)
    code, _, err = call(monkeypatch, capsys, *given)
    assert code == 2 and said in err and "What to do: " in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "{long}"), "File name too long."),
        (("open", "{long}"), "File name too long."),
        (("gc", "--store", "{long}"), "File name too long."),
        (("predict", "{long}", "x.png"), "File name too long."),
        (("check", "run.yaml", "--set", "data.source={long}"), "File name too long."),
        (("history", "x", "--tracking", "sqlite:///{long}"), "File name too long."),
        (
            ("compile", "run.yaml", "-o", "folder"),
            "Error: folder cannot be used.\nWhy: Is a directory.",
        ),
    ],
)
def test_a_name_that_no_file_can_have_is_a_mistake(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("name: a\ndata: {source: x}\nstore: s\n")
    Path("folder").mkdir()
    code, _, err = call(monkeypatch, capsys, *(word.replace("{long}", "x" * 300) for word in words))
    assert code in (1, 2) and err.startswith("Error: ")
    assert said in err and "What to do: " in err and "x" * 256 not in err.splitlines()[0]

"""What the tests of an interrupted promotion share: the edges of its writes."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.faults import table

Write = tuple[str, str]  # a class with its module, and its method


@pytest.fixture(scope="session")
def at_write_edge() -> Callable[..., None]:
    """Act at the moment-th edge of the writes; each has two, before and after.

    `at(moment, writes, act, setattr)`, or with a monkeypatch's `setattr` to undo it.
    """

    def at(
        moment: int, writes: Sequence[Write], act: Callable[[], Any], replace: Callable[..., Any]
    ) -> None:
        passed = 0

        def edge() -> None:
            nonlocal passed
            passed += 1
            if passed == moment:
                act()

        def watched(function):
            def call(*args, **kwargs):
                edge()
                result = function(*args, **kwargs)
                edge()
                return result

            return call

        for path, name in writes:
            module, _, owner = path.rpartition(".")
            place = getattr(importlib.import_module(module), owner)
            replace(place, name, watched(getattr(place, name)))

    return at


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", help="print the campaign's table, and write it into a file")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption("--faults-table", None)
    if path is None:
        return
    file = Path(path)
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    text = table.markdown(table.rows_of(terminalreporter.stats, before))
    whole = not config.option.markexpr and not config.option.keyword
    if before and whole and not any("::" in argument for argument in config.args):
        table.write_into(file, text)  # a row is of all tests of its file, or stays
    terminalreporter.write_line("\n" + text)

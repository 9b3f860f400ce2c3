"""The campaign's table keeps the rows that did not run."""

from types import SimpleNamespace

from tests.faults import table


def report(file: str, points: int = 0) -> SimpleNamespace:
    properties = [("points", points)] if points else []
    return SimpleNamespace(nodeid=f"tests/faults/{file}.py::test", user_properties=properties)


def line(text: str, file: str) -> str:
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {table.ROWS[file][0]} |")]
    return found


def test_a_row_that_did_not_run_stays_as_it_was() -> None:
    passed = {"passed": [report("test_clocks", 3), report("test_clocks", 4)]}
    first = table.markdown(table.rows_of(passed))
    assert "| 7 | held |" in line(first, "test_clocks")
    assert "| 0 | not run |" in line(first, "test_memory")
    later = {"failed": [report("test_memory")], "skipped": [report("test_memory")]}
    second = table.markdown(table.rows_of(later, first))
    assert line(second, "test_clocks") == line(first, "test_clocks")
    assert "| 1 FAILED, 1 skipped |" in line(second, "test_memory")
    assert second.count("\n") == first.count("\n") == len(table.ROWS) + 1

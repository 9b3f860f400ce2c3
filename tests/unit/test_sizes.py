"""The house's limits: what is longer is harder to read than to divide.

A function is counted from its `def` to its last line, signature and docstring included.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOTS = ("components", "pipelines")
FUNCTION_LINES, PARAMETERS, CLASS_LINES = 60, 10, 250
RUN_LINES = 40  # of a step, without its docstring: the step in one view
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> list[tuple[str, str, ast.Module]]:
    """Path, text and tree of every module."""
    paths = [path for root in ROOTS for path in sorted((ROOT / root).rglob("*.py"))]
    texts = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]
    return [(path, text, ast.parse(text)) for path, text in texts]


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds, with its place."""
    for path, _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{path}:{getattr(node, 'lineno', 0)} {getattr(node, 'name', '')}", node


def lines(node: ast.AST) -> int:
    """From the first line to the last."""
    assert isinstance(node, Function | ast.ClassDef) and node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def docstring_lines(node: ast.AST) -> int:
    """Of a function that may have none."""
    assert isinstance(node, Function)
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def parameters(function: Function) -> int:
    """Without `self` and `cls`, and without `**config` of a step.

    `run(**config)` takes one section of the run file, which is declared in the step's `config.py`.
    """
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    kept = [each.arg for each in named if each.arg not in ("self", "cls")]
    if arguments.vararg:
        kept.append(arguments.vararg.arg)
    if arguments.kwarg and arguments.kwarg.arg != "config":
        kept.append(arguments.kwarg.arg)
    return len(kept)


def is_signature(place: str, function: Function) -> bool:
    """Whether the parameters are an interface of its own.

    Each input and output of a KFP component is a parameter, and each option of a command is one.
    """
    component = place.split(":")[0].endswith("component.py")
    command = "/cli/commands/" in place and "typer" in ast.dump(function.args) + "".join(
        ast.dump(decorator) for decorator in function.decorator_list
    )
    return component or command


def test_no_function_is_longer_than_60_lines() -> None:
    found = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    assert [
        f"{place}: {lines(node)}" for place, node in found if lines(node) > FUNCTION_LINES
    ] == []


def test_a_step_reads_in_one_view() -> None:
    steps = [(place, node) for place, node in nodes(ast.FunctionDef) if "/step.py:" in place]
    runs = {place: node for place, node in steps if place.endswith(" run")}
    assert len(runs) >= 9
    lengths = {place: lines(node) - docstring_lines(node) for place, node in runs.items()}
    assert {place: count for place, count in lengths.items() if count > RUN_LINES} == {}


def test_no_function_takes_more_than_10_parameters() -> None:
    found = [
        f"{place}: {parameters(node)}"
        for place, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, Function)
        and parameters(node) > PARAMETERS
        and not is_signature(place, node)
    ]
    assert found == []


def test_no_class_is_longer_than_250_lines() -> None:
    found = nodes(ast.ClassDef)
    assert [f"{place}: {lines(node)}" for place, node in found if lines(node) > CLASS_LINES] == []


def test_the_formatter_is_never_switched_off() -> None:
    marks = ("fmt: " + "skip", "fmt: " + "off", "yapf: " + "disable")
    assert [path for path, text, _ in modules() if any(mark in text for mark in marks)] == []

"""The options and arguments that several commands share, and the way to the cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

RunFile = Annotated[
    Path, typer.Argument(metavar="RUN.yaml", help="The run file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="path.to.key=value: replaces a value of the run file.", metavar="K=V"
    ),
]
RunsDir = Annotated[Path, typer.Option(help="Parent folder of the runs' folders.")]
RunnerName = Annotated[
    str,
    typer.Option("--runner", help="subprocess, or docker: one hardened container for each step."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Compute everything again; take no earlier run's results.")
]
Graph = Annotated[
    str,
    typer.Option(
        "--pipeline", help="train; retrain: check for changes first; predict: classify a bucket."
    ),
]

# The help differs in where else a command prints.
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLast = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
JsonBeside = Annotated[bool, typer.Option("--json", help="One JSON object; tables to stderr.")]
JsonValue = Annotated[bool, typer.Option("--json", help="Print one JSON value, tables to stderr.")]

StoreUri = Annotated[str, typer.Option("--store", help="URI of the store.", metavar="URI")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The registered model.")]
Tracking = Annotated[
    str,
    typer.Option(
        "--tracking",
        envvar="MLFLOW_TRACKING_URI",
        metavar="URI",
        show_default=False,  # too long for the help's narrow column, which cuts it
        help="MLflow's tracking URI. Default: the database in .graftline.",
    ),
]
DEFAULT_STORE = ".graftline/store"
DEFAULT_TRACKING = "sqlite:///.graftline/mlflow.db"

RunName = Annotated[str, typer.Argument(help="A run's id, the start of one, or its name.")]
KubeContext = Annotated[
    str | None,
    typer.Option(help="kubeconfig context whose nodes are compared with the pools."),
]
AskRegistry = Annotated[
    bool, typer.Option("--registry/--no-registry", help="Ask whether the images exist.")
]
Host = Annotated[
    str | None,
    typer.Option(
        help="Address of Kubeflow Pipelines. Default: KF_PIPELINES_ENDPOINT.", metavar="URL"
    ),
]
Namespace = Annotated[
    str | None, typer.Option(help="Namespace of the runs, if the server has several users.")
]


def connect(host: str | None, namespace: str | None, console: Any, *, by_id: bool = False) -> Any:
    """The server; what is odd about it is printed.

    Args:
        host: Its address.
        namespace: Of the runs.
        console: Where notes are printed.
        by_id: Whether only a run is asked for, by its id, which needs no namespace.
    """
    from graftline_pipelines.cluster import server as cluster

    server = cluster.connect(host, namespace, by_id=by_id)
    for note in server.notes:
        console.print(f"[yellow]Note:[/] {note}", highlight=False)
    return server


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on a terminal while something takes its time; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def checking(console: "Console") -> Iterator[Callable[[str], None]]:
    """A spinner on a terminal while a run file is checked; it shows what is asked."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("Checking the run file") as status:
        yield lambda key: status.update(f"Checking {key}")


def chosen_runner(name: str) -> Literal["subprocess", "docker"]:
    """What ``--runner`` says; a usage error where it says something else."""
    if name == "subprocess":
        return "subprocess"
    if name == "docker":
        return "docker"
    raise typer.BadParameter(f"{name!r} is neither subprocess nor docker", param_hint="--runner")


def graph_name(name: str) -> Literal["train", "retrain", "predict"]:
    """What ``--pipeline`` says; a usage error where it says something else."""
    if name == "train":
        return "train"
    if name == "retrain":
        return "retrain"
    if name == "predict":
        return "predict"
    raise typer.BadParameter(f"{name!r} is not train, retrain or predict", param_hint="--pipeline")

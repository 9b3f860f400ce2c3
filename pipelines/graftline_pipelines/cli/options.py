"""Where Kubeflow Pipelines is: the options that say so, and the way there."""

from typing import Annotated, Any

import typer

Host = Annotated[
    str | None,
    typer.Option(help="Address of Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT.", metavar="URL"),
]
Namespace = Annotated[
    str | None, typer.Option(help="Namespace of the runs, where the server has several users.")
]


def connect(host: str | None, namespace: str | None, console: Any) -> Any:
    """The server; what is odd about it is told."""
    from graftline_pipelines.cluster import server as cluster

    server = cluster.connect(host, namespace)
    for note in server.notes:
        console.print(f"[yellow]Note:[/] {note}", highlight=False, soft_wrap=True)
    return server

"""What a warm process makes ready for the steps, and in which order.

Each thing is a name: a module to import, MLflow's database to open by its URI, or one of those that
:func:`make_ready` says. Whatever is made ready once, no fork does again.
"""

import contextlib
import importlib
from collections.abc import Callable

from graftline_pipelines.local.warm import REUSABLE

MLFLOW = (  # first: the checks before a run wait for it
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
CODE = "the code's digests"  # in the place of a module: part of the keys of kept results
LIGHT = (  # what every step needs, and what those need that compute nothing
    *MLFLOW,
    "kfp.dsl.executor_main",
    "graftline.steps.ingest.step",
    "graftline.steps.watch.step",
    "graftline.steps.extract_features.step",
    "graftline.steps.evaluate.same_model",
    "graftline.steps.promote.step",
)
LARGE = (  # in the order in which the steps of a run need them
    "torch",
    "timm",  # of which extract_features makes the network
    "graftline.steps.fit_head.step",
    "sklearn.linear_model",
    "graftline.steps.evaluate.step",
    "graftline.steps.export_onnx.step",
    "mlflow.onnx",
)
DATABASE = "sqlite:"
QUERIES = "queries of "  # an open database
TABLE = "table of backbones"
TEMPLATES = "templates of "
REST = (  # what each fork would do by itself, and no step waits for
    "graftline_pipelines.preflight.remote",
    "graftline.tracking.readiness",
    TABLE,
    "pyarrow.dataset",
    "graftline.tracking.dead_runs",
    "graftline.tracking.run_record",
    *(f"{TEMPLATES}graftline.steps.{step}" for step in ("ingest", "fit_head", "evaluate")),
)
NEEDS = {  # the last of them that a step needs: without it, it would import the same again
    "extract_features": "timm",
    "extract_share": "timm",
    "fit_head": "sklearn.linear_model",
    "fine_tune": "sklearn.linear_model",
    "evaluate": "graftline.steps.evaluate.step",
    "export_onnx": "graftline.steps.export_onnx.step",
}


def make_ready(name: str) -> None:
    """Import a module, or do once what its name says that each step would do."""
    if name == CODE:
        importlib.import_module("graftline.steps.reuse").learn_code(REUSABLE)
    elif name == TABLE:
        importlib.import_module("graftline.models.catalogue").table()
    elif name.startswith(TEMPLATES):
        html = importlib.import_module("graftline.reports.html")
        html.compile_templates(name.removeprefix(TEMPLATES))
    elif name.startswith(DATABASE):
        _open(name, ask=False)
    elif name.startswith(QUERIES):
        _open(name.removeprefix(QUERIES), ask=True)
    else:
        importlib.import_module(name)


def _open(uri: str, *, ask: bool) -> None:
    """Open MLflow's database, and have its queries compiled: each fork would do it by itself.

    Args:
        uri: Of the database.
        ask: Whether to ask also what one question of every step needs.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from graftline.tracking.client import connect

    try:
        client = connect(uri)
        experiments = client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
        runs = client.search_runs([each.experiment_id for each in experiments], max_results=1)
        questions: tuple[Callable[[], object], ...] = (
            lambda: client.get_experiment_by_name("-"),
            lambda: client.get_run(runs[0].info.run_id if runs else "0" * 32),
            lambda: client.get_registered_model("-"),
            lambda: client.get_model_version("-", "1"),
            lambda: client.search_model_versions("name = '-'", max_results=1),
            lambda: client.search_model_versions("name = '-' and tags.`-` = '-'", max_results=1),
        )
        for question in questions if ask else ():
            with contextlib.suppress(MlflowException):  # there is no such thing
                question()
    finally:  # a connection to SQLite must not be carried over a fork
        for engines in (SqlAlchemyStore._engine_map, RegistryStore._engine_map):
            for engine in engines.values():
                engine.dispose()

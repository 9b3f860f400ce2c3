"""MLflow's alias ``champion``, and how it is kept where the log of champions says.

The log decides; the alias follows it. Whoever reads or moves the champion brings the two together
first, so that a promotion that was interrupted is finished by the next reader.
"""

import time
from typing import TYPE_CHECKING

from graftline.errors import TrackingError
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.uri import local_path
from graftline.tracking.champion_log import ChampionLog, Entry, Kind
from graftline.tracking.mlflow_run import TAG
from graftline.tracking.server_answers import mlflow_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ALIAS = "champion"
LOG_TAG = TAG + "champions"  # of the registered model: the store that holds its log
ATTEMPTS = 40  # rounds in which other writers may be faster
PATIENCE_SECONDS = 5.0  # for another process to finish what it has begun


class ChampionAlias:
    """The alias of each registered model at one tracking URI, and the log that it follows."""

    def __init__(self, uri: str, client: "MlflowClient") -> None:
        self.uri = uri
        self._client = client

    def settled(self, log: ChampionLog, verdict: str | None = None) -> Entry | None:
        """Bring log and alias together; the log's last entry.

        The log is read before the alias: an alias that is newer than the log is told apart from
        one that was moved by hand when the next entry cannot be written.

        Args:
            log: The model's log.
            verdict: An unfinished entry with this verdict is our own, and finished at once.
        """
        patience = time.monotonic() + PATIENCE_SECONDS
        for _ in range(ATTEMPTS * 10):
            last = log.last()
            settled = last is not None and log.is_settled(last.number)
            alias = self.version(log.name)
            if (last.version if last else None) == alias:
                if last is not None and not settled:
                    log.settle(last.number)
                return last
            ours = last is not None and verdict is not None and last.verdict == verdict
            if not ours and time.monotonic() < patience:
                time.sleep(0.1)  # whoever has begun is given the time to finish
            elif last is not None and not settled:
                self.follow(log, last)
            else:
                self._adopt(log, last, alias)
        raise restless(log.name)

    def _adopt(self, log: ChampionLog, last: Entry | None, alias: str | None) -> None:
        """Put on record that the alias was moved outside of Graftline."""
        kind: Kind = "moved by hand"
        number = last.number + 1 if last else 1
        entry = Entry(
            number=number, kind=kind, version=alias, replaced=last.version if last else None
        )
        if log.append(entry):
            log.settle(number)

    def follow(self, log: ChampionLog, entry: Entry) -> None:
        """Move the alias to where the log's last entry says, whoever wrote that."""
        with mlflow_errors(self.uri, f"the alias of {log.name}"):
            for _ in range(ATTEMPTS):
                if entry.version is None:
                    self._client.delete_registered_model_alias(log.name, ALIAS)
                else:
                    self._client.set_registered_model_alias(log.name, ALIAS, entry.version)
                last = log.last()
                assert last is not None
                if last.number == entry.number:
                    log.settle(entry.number)
                    return
                entry = last
        raise restless(log.name)

    def tags(self, name: str) -> dict[str, str] | None:
        """Tags of the registered model; None where there is no such model."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self._client.get_registered_model(name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def version(self, name: str) -> str | None:
        """The version that the alias points to; None where it points nowhere."""
        with mlflow_errors(self.uri, f"the alias of {name}"):
            aliases = self._client.get_registered_model(name).aliases
            version = aliases.get(ALIAS)
            return None if version is None else str(version)

    def make_model(self, name: str, store: Store) -> None:
        """Make the registered model, with the store of its log, where there is none yet."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri, f"the registered model {name}"):
            try:
                self._client.create_registered_model(name, tags={LOG_TAG: store.uri})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def log(self, name: str, store: Store | None) -> ChampionLog | None:
        """The model's log: where its tag says; in ``store`` where it says nothing yet."""
        with mlflow_errors(self.uri, f"the registered model {name}"):
            tagged = (self.tags(name) or {}).get(LOG_TAG)
            if tagged is not None and not (store is not None and _is_gone(tagged)):
                return ChampionLog(open_store(tagged), name)
            if store is None:
                return None
            self._client.set_registered_model_tag(name, LOG_TAG, store.uri)
            return ChampionLog(store, name)


def _is_gone(uri: str) -> bool:
    """Whether a store on disk is no longer there, as after its folder was moved."""
    path = local_path(uri)
    return path is not None and not path.is_dir()


def restless(name: str) -> TrackingError:
    """The error for a champion that other processes keep moving."""
    return TrackingError(
        f"The champion of {name!r} keeps changing.",
        why="Other processes promote or roll back at the same time.",
        fix="Stop them, or try again later.",
    )

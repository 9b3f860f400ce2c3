"""Model versions and the champion, in MLflow's registry.

A version is registered once, with all its tags. The alias ``champion`` follows the log of
:mod:`graftline.tracking.champion_log`, which alone decides who is champion.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from graftline.errors import (
    ConfigurationError,
    IntegrityError,
    PromotionConflict,
    StoreError,
    TrackingError,
    TrackingUnreachable,
)
from graftline.files import sha256_of
from graftline.progress import message
from graftline.storage.base import Store
from graftline.tracking import relocation
from graftline.tracking.champion_alias import ATTEMPTS, ChampionAlias, restless
from graftline.tracking.champion_log import Entry
from graftline.tracking.client import absolute_uri, connect
from graftline.tracking.filters import equals
from graftline.tracking.mlflow_run import TAG
from graftline.tracking.server_answers import mlflow_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

BUSY = r"version creation error|locked|busy|temporarily|timed out|too many|\b50[0-4]\b|internal"
IMPLIED = (".graftline", "mlflow.db")  # where a database is that nobody named
LONGEST_DESCRIPTION = 5000  # MLflow's column
REST = "\n\nThe rest is in `MODEL_CARD.md` beside the model."
BUSY_SECONDS = 60.0  # for which a registration is repeated while others write


@dataclasses.dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model.

    Attributes:
        name: The registered model.
        version: Its number, as MLflow has it.
        run_id: Tracking run that made it.
        tags: Its tags.
        uri: Tracking URI of its registry.
    """

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    uri: str = dataclasses.field(repr=False)

    @property
    def snapshot_id(self) -> str | None:
        """Dataset snapshot that it was trained on, where it is known."""
        return self.tags.get(TAG + "snapshot_id")

    @property
    def store(self) -> str | None:
        """Store that holds the snapshot, where it is known."""
        return self.tags.get(TAG + "store")

    @property
    def digest(self) -> str | None:
        """sha256 of its ONNX file, where it is known."""
        return self.tags.get(TAG + "onnx_sha256")

    def download(self, folder: Path) -> Path:
        """Copy all its files; returns the folder they are in.

        Raises:
            TrackingError: MLflow does not hand them out.
        """
        client = connect(self.uri)
        folder.mkdir(parents=True, exist_ok=True)
        with mlflow_errors(self.uri, f"the files of {self.name} version {self.version}"):
            from mlflow.artifacts import download_artifacts

            source = client.get_model_version_download_uri(self.name, self.version)
            found = download_artifacts(
                artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri
            )
        return Path(found)

    def download_onnx(self, folder: Path) -> Path:
        """Copy its files; returns the ONNX file, whose digest is right.

        Raises:
            TrackingError: MLflow does not hand it out, or it is no ONNX model.
            IntegrityError: It is not the file that was registered.
        """
        found = self.download(folder)
        files = sorted(found.rglob("*.onnx"), key=lambda path: (path.name != "model.onnx", path))
        if not files:
            raise TrackingError(
                f"{self.name} version {self.version} has no ONNX file.",
                fix="Register models with `graftline run`, or move the alias to one that has it.",
            )
        if self.digest is not None:
            digest = sha256_of(files[0])
            if digest != self.digest:
                raise IntegrityError(
                    f"The ONNX file of {self.name} version {self.version} has changed.",
                    why=f"Its sha256 is {digest}; {self.digest} was registered.",
                    fix="Roll back to another version and register this one again.",
                )
        return files[0]


@dataclasses.dataclass(frozen=True)
class Promotion:
    """What came of a promotion.

    Attributes:
        entry: The log's entry that holds it.
        in_force: Whether that version is still champion; False where another replaced it since.
    """

    entry: Entry
    in_force: bool


def open_registry(uri: str) -> "Registry":
    """The model registry at a tracking URI.

    Raises:
        TrackingUnreachable: The server does not answer.
    """
    return Registry(uri, connect(uri))


def existing_registry(uri: str, *, changing: bool = False) -> "Registry":
    """The same; a mistyped local database is an error, and is not made.

    Args:
        uri: Tracking URI.
        changing: Whether something will be changed, and not only read.

    Raises:
        ConfigurationError: There is no such database, or its records name files elsewhere: the
            log of champions would be written there.
        TrackingError: It cannot be read.
        TrackingUnreachable: The server does not answer.
    """
    database = relocation.database_of(uri)
    if database is not None and not database.is_file():
        raise ConfigurationError(
            f"There is no database {database}.",
            why="Without --tracking and MLFLOW_TRACKING_URI, it is looked for in this folder."
            if database.parts[-2:] == IMPLIED
            else "A relative path begins at this folder.",
            fix="Go to the folder that `graftline run` ran in, or give tracking.uri of the run "
            "file as --tracking.",
        )
    relocation.check_readable(uri)
    moved = relocation.find(uri)
    if moved is not None and (changing or not moved.copied):
        how = "copied" if moved.copied else "moved"
        raise ConfigurationError(
            f"MLflow's records here name files in {moved.before}.",
            why=f"This folder was {how} from there.",
            fix="Run `graftline relocate RUN.yaml` once: then they name the files here.",
        )
    return open_registry(absolute_uri(uri))


def unknown_model(name: str) -> TrackingError:
    """The error for a registered model that is not there."""
    return TrackingError(
        f"MLflow has no registered model {name!r}.", fix="Check the name and the tracking URI."
    )


def _found(client: "MlflowClient", name: str, version: str) -> "ModelVersion":
    """A version; the error for one that is not there names those that are."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    found = client.search_model_versions(equals("name", name))
    if not found:
        raise unknown_model(name)
    numbers = sorted(int(one.version) for one in found)
    raise TrackingError(
        f"The registered model {name!r} has no version {version}.",
        fix=f"It has {', '.join(map(str, numbers[-10:]))}.",
    )


class Registry:
    """Registered models. Made by :func:`open_registry`."""

    def __init__(self, uri: str, client: "MlflowClient") -> None:
        self.uri = uri
        self._client = client
        self._alias = ChampionAlias(uri, client)

    def champion(self, name: str) -> RegisteredVersion | None:
        """The champion; None where there is none. Finishes a promotion that was interrupted."""
        with mlflow_errors(self.uri, f"the champion of {name}"):
            if self._alias.tags(name) is None:
                return None
            log = self._alias.log(name, None)
            if log is not None:
                try:
                    self._alias.settled(log)
                except StoreError as error:
                    message("WARNING: the champion is taken from MLflow's alias alone. %s", error)
            version = self._alias.version(name)
            return self.version(name, version) if version is not None else None

    def version(self, name: str, version: str) -> RegisteredVersion:
        """One version.

        Raises:
            TrackingError: There is none by that number.
        """
        with mlflow_errors(self.uri, f"{name} version {version}"):
            found = _found(self._client, name, version)
            return RegisteredVersion(
                name, str(found.version), found.run_id or "", dict(found.tags), self.uri
            )

    def has(self, name: str) -> bool:
        """Whether there is a registered model of this name."""
        with mlflow_errors(self.uri, f"the registered model {name}"):
            return self._alias.tags(name) is not None

    def find(self, name: str, content: str) -> RegisteredVersion | None:
        """The first version with this content, whatever run made it; None where there is none.

        Args:
            name: The registered model.
            content: Digest of the ONNX file without the run's id.
        """
        with mlflow_errors(self.uri, f"the versions of {name}"):
            found = self._client.search_model_versions(
                f"{equals('name', name)} and {equals(f'tags.`{TAG}content_sha256`', content)}"
            )
        numbers = sorted(int(version.version) for version in found)
        return self.version(name, str(numbers[0])) if numbers else None

    def register(
        self,
        name: str,
        *,
        run_id: str,
        source: str,
        tags: Mapping[str, str],
        store: Store,
        description: str | None = None,
    ) -> RegisteredVersion:
        """Make a version, with all its tags at once.

        Args:
            name: The registered model; made where there is none.
            run_id: Tracking run that made it.
            source: Where its files are.
            tags: Its tags, without our prefix.
            store: Where the log of champions goes if the model is new.
            description: What MLflow shows of it, Markdown; a long one is cut.
        """
        # All of this may be repeated: of versions with one content the first is taken.
        retrying = Retrying(
            retry=retry_if_exception(_is_busy),
            stop=stop_after_delay(BUSY_SECONDS),
            wait=wait_random(0.2, 0.4),
            reraise=True,
        )
        return retrying(self._register, name, run_id, source, tags, store, description)

    def _register(
        self,
        name: str,
        run_id: str,
        source: str,
        tags: Mapping[str, str],
        store: Store,
        description: str | None,
    ) -> RegisteredVersion:
        self._alias.make_model(name, store)
        full = {TAG + key: value for key, value in tags.items()}
        with mlflow_errors(self.uri, f"a version of {name}"):
            made = self._client.create_model_version(
                name,
                source,
                run_id,
                tags=full,
                description=_cut(description),
                await_creation_for=30,
            )
        content = tags.get("content_sha256")
        first = self.find(name, content) if content else None  # another may have been faster
        return first or self.version(name, str(made.version))

    def tag(self, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version, without our prefix."""
        with mlflow_errors(self.uri, f"tags of {version.name} version {version.version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(version.name, version.version, TAG + key, value)

    def promote(
        self,
        version: RegisteredVersion,
        *,
        compared_with: str | None,
        verdict: str,
        store: Store,
        reasons: tuple[str, ...] = (),
        figures: Mapping[str, Any] | None = None,
    ) -> Promotion:
        """Make a version champion, if the champion is still the one it was compared with.

        A second call with the same verdict finishes or repeats nothing but the first.

        Args:
            version: The challenger.
            compared_with: Version of the champion in the verdict; None where there was none.
            verdict: Digest of the verdict.
            store: Store of the run, for the log where the model has none yet.
            reasons: Sentences of the verdict.
            figures: What was measured of both.

        Raises:
            PromotionConflict: The champion is another one now.
        """
        log = self._alias.log(version.name, store)
        assert log is not None
        for _ in range(ATTEMPTS):
            last = self._alias.settled(log, verdict=verdict)
            applied = next((e for e in log.entries() if e.verdict == verdict), None)
            if applied is not None:
                return Promotion(
                    applied, in_force=last is not None and last.version == applied.version
                )
            champion = last.version if last else None
            if champion != compared_with:
                raise _conflict(version, compared_with, champion)
            entry = Entry(
                number=last.number + 1 if last else 1,
                kind="promotion",
                version=version.version,
                replaced=champion,
                run_id=version.run_id,
                snapshot_id=version.snapshot_id or "",
                reasons=reasons,
                figures=dict(figures or {}),
                verdict=verdict,
            )
            if log.append(entry):
                self._alias.follow(log, entry)
                return Promotion(entry, in_force=True)
        raise restless(version.name)

    def rollback(
        self, name: str, to: str | None = None, *, store: Store | None = None, reason: str = ""
    ) -> Entry:
        """Make an earlier version champion again.

        Args:
            name: The registered model.
            to: Version; the one before the present champion where not given.
            store: Where the log goes if the model has none yet.
            reason: Why, for the record.

        Raises:
            ConfigurationError: There is no such version, or nothing to go back to.
        """
        log = self._alias.log(name, store)
        if log is None:
            raise ConfigurationError(
                f"There is no log of champions for {name!r}.",
                why="No model was promoted under that name at this tracking URI.",
                fix="Check the name and the tracking URI.",
            )
        for _ in range(ATTEMPTS):
            last = self._alias.settled(log)
            target = to or _before(log.entries())
            self._check_target(name, target, last)
            entry = Entry(
                number=last.number + 1 if last else 1,
                kind="rollback",
                version=target,
                replaced=last.version if last else None,
                reasons=(reason,) if reason else (),
            )
            if log.append(entry):
                self._alias.follow(log, entry)
                return entry
        raise restless(name)

    def history(self, name: str) -> list[Entry]:
        """Who replaced whom, the first one first; empty where nothing was promoted.

        Raises:
            TrackingError: There is no such registered model.
        """
        if not self.has(name):
            raise unknown_model(name)
        log = self._alias.log(name, None)
        if log is None:
            return []
        self._alias.settled(log)
        return log.entries()

    def _check_target(self, name: str, target: str | None, last: Entry | None) -> None:
        if target is None:
            raise ConfigurationError(
                f"{name!r} has no earlier champion to go back to.",
                fix="Name a version with --to; `graftline history` shows them.",
            )
        if last is not None and last.version == target:
            raise ConfigurationError(f"Version {target} of {name!r} is the champion already.")
        try:
            self.version(name, target)
        except TrackingError as error:
            raise ConfigurationError(
                f"{name!r} has no version {target}.",
                why=error.why,
                fix="`graftline history` shows the versions that were champion.",
            ) from error


def _cut(description: str | None) -> str | None:
    """A description as long as MLflow's databases take it, whole lines of it."""
    if description is None or len(description) <= LONGEST_DESCRIPTION:
        return description
    kept = description[: LONGEST_DESCRIPTION - len(REST)]
    return kept.rpartition("\n")[0] + REST


def _is_busy(error: BaseException) -> bool:
    """Whether a small database refused one of many writers at once."""
    if not isinstance(error, TrackingError) or isinstance(error, TrackingUnreachable):
        return False
    return re.search(BUSY, str(error), re.IGNORECASE) is not None


def _before(entries: list[Entry]) -> str | None:
    """The champion before the present one first became champion."""
    if not entries:
        return None
    present = entries[-1].version
    return next((e.replaced for e in entries if e.version == present), None)


def _conflict(
    version: RegisteredVersion, compared_with: str | None, champion: str | None
) -> PromotionConflict:
    before = f"version {compared_with}" if compared_with else "no champion"
    now = f"version {champion}" if champion else "none"
    return PromotionConflict(
        f"Version {version.version} of {version.name!r} was compared with {before}, but the "
        f"champion is {now} now.",
        why="Another run or a rollback was faster; this verdict does not cover that champion.",
        fix="Run again to compare with the current champion.",
    )

"""The backbone that a race chose for a source, kept in the store: ``backbone: auto`` races once.

races/<digest of source, candidates and how images are read>.json
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from graftline.errors import ConfigurationError, IntegrityError, SchemaVersionError, StoreNotFound
from graftline.models.names import BLOCKS
from graftline.models.weights.published import EMBEDDED, package_of
from graftline.schema import check_schema_version
from graftline.storage import commit, open_store
from graftline.storage.uri import absolute
from graftline_pipelines.runfile.settings import AUTO_BACKBONE, RunSettings

if TYPE_CHECKING:
    from graftline_pipelines.local.race import Race

SCHEMA_VERSION = 1


def candidates(settings: RunSettings) -> tuple[str, ...]:
    """The backbones that ``backbone: auto`` chooses from.

    Without ``race.backbones`` those small ones whose weights are installed as Python packages, the
    smallest with the features of all its blocks, too.
    """
    here = [name.partition("/")[2] for name in EMBEDDED if package_of(name) is not None]
    return settings.race.backbones or (*here[:1], *(n + BLOCKS for n in here[:1]), *here[1:])


def remember(settings: RunSettings, race: "Race", names: Sequence[str]) -> None:
    """Keep what a race chose.

    Raises:
        StoreError: The store cannot be written to.
    """
    content = {"schema_version": SCHEMA_VERSION, **asdict(race)}
    commit.overwrite(open_store(settings.store), _key(settings, names), content)


def remembered(settings: RunSettings, names: Sequence[str]) -> str | None:
    """What an earlier race between the same backbones chose for this source; None for none."""
    try:
        content = commit.read(open_store(settings.store), _key(settings, names)).content
        check_schema_version(content, SCHEMA_VERSION, "the remembered race")
    except (StoreNotFound, SchemaVersionError, IntegrityError):
        return None
    chosen = content.get("chosen")
    return chosen if chosen in names else None


def with_backbone(settings: RunSettings, name: str) -> RunSettings:
    """The same settings with a backbone instead of ``auto``."""
    return settings.model_copy(update={"backbone": name})


def expected(settings: RunSettings) -> tuple[str, str]:
    """What ``backbone: auto`` comes to, in a sentence, and a name to check the run file with."""
    names = candidates(settings)
    chosen = names[0] if len(names) == 1 else remembered(settings, names)
    if chosen is not None:
        return f"backbone: {AUTO_BACKBONE} is {chosen}.", chosen
    racing = f"backbone: {AUTO_BACKBONE} is decided by a race of {', '.join(names)}"
    return f"{racing} at the first run; checked with {names[0]}.", names[0]


def raced(settings: RunSettings, show: Callable[["Race"], None]) -> RunSettings:
    """The settings with a name for ``backbone: auto``; the first time a race finds it.

    Args:
        settings: The run file.
        show: Is given the race, if there is one.
    """
    if settings.backbone != AUTO_BACKBONE:
        return settings
    names = candidates(settings)
    found = names[0] if len(names) == 1 else remembered(settings, names)
    if found is None:
        result = run_race(settings, names, settings.race.minutes)
        show(result)
        found = result.chosen
    return with_backbone(settings, found)


def run_race(settings: RunSettings, names: Sequence[str], minutes: float | None) -> "Race":
    """Run a race and remember it."""
    from graftline_pipelines.local.race import race  # imports PyTorch
    from graftline_pipelines.local.run import with_absolute_paths

    here = with_absolute_paths(settings)
    result = race(here, names, images=settings.race.images, minutes=minutes)
    remember(here, result, names)
    return result


def settled(settings: RunSettings) -> RunSettings:
    """The settings with the backbone that a race chose, where the run file says ``auto``.

    Raises:
        ConfigurationError: No race between these candidates is remembered in the store.
    """
    if settings.backbone != AUTO_BACKBONE:
        return settings
    names = candidates(settings)
    chosen = names[0] if len(names) == 1 else remembered(settings, names)
    if chosen is None:
        raise ConfigurationError(
            f"backbone: {AUTO_BACKBONE} has not been decided for {settings.data.source}",
            why=f"no race between {', '.join(names)} is in the store {settings.store}",
            fix="Run `graftline race RUN.yaml` first, on a machine that reads the data and the "
            "store; or name a backbone.",
        )
    return with_backbone(settings, chosen)


def _key(settings: RunSettings, names: Sequence[str]) -> str:
    data = settings.data.model_dump(mode="json", exclude={"split"})
    identity: dict[str, Any] = {
        "data": {**data, "source": absolute(settings.data.source)},
        "backbones": sorted(names),
        "weights": settings.weights,
        "image_size": settings.image_size,
        "fit": settings.image.fit,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"races/{digest[:32]}.json"

"""What a schedule should be, what is there, and the difference.

A digest of what each schedule was made from is in its description, beside whether it should
fire in the end; 255 characters are all that the server's database takes. Carrying the difference
out is the business of :mod:`graftline_pipelines.cluster.scheduling.reconcile`.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from graftline.errors import ClusterError, ConfigurationError
from graftline_pipelines.cluster.errors import NotOnServer
from graftline_pipelines.cluster.server import MAX_TEXT, Cluster, Version, equals
from graftline_pipelines.runfile.cron import Cron, next_times, parse
from graftline_pipelines.runfile.settings import RunSettings

MARK = "graftline: "

Action = Literal["create", "replace", "leave", "finish"]


@dataclass(frozen=True)
class Desired:
    """The schedule of a run file."""

    name: str
    cron: str
    time_zone: str
    pipeline: str
    version: str
    experiment: str
    service_account: str | None
    enabled: bool

    @property
    def content(self) -> dict[str, Any]:
        """What the server is given; a difference in it is a reason to replace."""
        return {
            "cron": self.cron,
            "pipeline": self.pipeline,
            "version": self.version,
            "experiment": self.experiment,
            "service_account": self.service_account,
            "enabled": self.enabled,
        }

    @property
    def digest(self) -> str:
        """A name for the content."""
        text = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Existing:
    """A schedule on the server that we made.

    Attributes:
        content: What it was made from, as :attr:`Wanted.content`; without what is not known, such
            as the name of a pipeline that was deleted.
        fires_finally: Whether it should fire when no replacement is under way.
        raw: The server's own object.
    """

    schedule_id: str
    name: str
    enabled: bool
    created: datetime
    cron: str
    pipeline_id: str
    version_id: str
    digest: str
    content: Mapping[str, Any]
    fires_finally: bool
    time_zone: str
    raw: Any


@dataclass(frozen=True)
class Plan:
    """What ``apply`` does.

    Attributes:
        keep: The schedule that stays, where it exists already.
        remove: The ones that go.
        fires: Whether the one that stays fires in the end.
        reasons: The differences, one sentence each.
    """

    action: Action
    keep: Existing | None
    remove: tuple[Existing, ...]
    fires: bool
    reasons: tuple[str, ...]


def desired(settings: RunSettings, pipeline: str, version: str) -> Desired:
    """The schedule that a run file asks for.

    Raises:
        ConfigurationError: It asks for none, or its cron is wrong.
    """
    schedule = settings.schedule
    if schedule.cron is None:
        raise ConfigurationError(
            "schedule.cron is missing: the run file asks for no schedule",
            fix="Set it, for example to '0 30 2 * * *' for every night at half past two, or remove "
            "the schedule that is there with `graftline schedule remove`.",
        )
    parse(schedule.cron)
    return Desired(
        settings.name,
        schedule.cron,
        schedule.time_zone,
        pipeline,
        version,
        settings.experiment,
        settings.cluster.service_account,
        schedule.enabled,
    )


def existing(cluster: Cluster, name: str | None = None) -> list[Existing]:
    """The schedules on the server that we made, the oldest first; all of them, or one name's."""
    arguments: dict[str, Any] = {"namespace": cluster.namespace, "sort_by": "created_at asc"}
    if name is not None:
        arguments["filter"] = equals("display_name", name)
    listed = cluster.every(
        "listing schedules", cluster.client.list_recurring_runs, "recurring_runs", **arguments
    )
    names = _Names(cluster)
    return [found for item in listed if (found := _existing(item, names)) is not None]


def describe(desired: Desired, *, fires: bool) -> str:
    """The description of a schedule: short enough for every name, cron and time zone.

    Args:
        desired: The schedule.
        fires: Whether it should fire when no replacement is under way.
    """
    return _description(
        {
            "digest": desired.digest,
            "version": desired.version[:40],
            "enabled": desired.enabled,
            "account": desired.service_account is not None,
            "fires": fires,
            "time_zone": desired.time_zone,
        }
    )


def describe_again(one: Existing) -> str:
    """The description for a copy of a schedule; one that an older version wrote may be too long."""
    description = str(one.raw.description)
    if len(description) <= MAX_TEXT:
        return description
    return _description(
        {
            "digest": one.digest,
            "version": str(one.content.get("version", ""))[:40],
            "enabled": one.content.get("enabled", True),
            "account": one.content.get("service_account") is not None,
            "fires": one.fires_finally,
            "time_zone": one.time_zone,
        }
    )


def _description(mark: Mapping[str, Any]) -> str:
    text = json.dumps(mark, separators=(",", ":"))
    return f"Kept by `graftline schedule apply`; do not edit.\n{MARK}{text}"


class _Names:
    """Names of pipelines and experiments, each asked for once; None where it is not known."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._known = cluster, dict[tuple[str, str], str | None]()

    def pipeline(self, pipeline_id: str) -> str | None:
        return self._name("pipeline", pipeline_id)

    def experiment(self, experiment_id: str) -> str | None:
        return self._name("experiment", experiment_id)

    def _name(self, kind: str, key: str) -> str | None:
        if not key:
            return None
        if (kind, key) not in self._known:
            self._known[kind, key] = None
            client = self._cluster.client
            with contextlib.suppress(ClusterError):
                method = client.get_pipeline if kind == "pipeline" else client.get_experiment
                found = self._cluster.call(
                    f"looking for a schedule's {kind}", method, **{f"{kind}_id": key}
                )
                self._known[kind, key] = str(found.display_name)
        return self._known[kind, key]


def _existing(item: Any, names: _Names | None = None) -> Existing | None:
    mark = next(
        (line for line in (item.description or "").splitlines() if line.startswith(MARK)), None
    )
    if mark is None:
        return None  # somebody else's
    try:
        known = json.loads(mark.removeprefix(MARK))
    except ValueError:
        return None
    if not isinstance(known, dict):
        return None
    reference = item.pipeline_version_reference
    trigger = item.trigger.cron_schedule if item.trigger else None
    return Existing(
        str(item.recurring_run_id),
        str(item.display_name),
        item.mode == "ENABLE",
        item.created_at,
        str(trigger.cron) if trigger else "",
        str(reference.pipeline_id) if reference else "",
        str(reference.pipeline_version_id) if reference else "",
        str(known.get("digest", "")),
        known["content"] if "content" in known else _content(item, known, names),
        bool(known.get("fires", True)),
        str(known.get("time_zone", "UTC")),
        item,
    )


def _content(item: Any, known: Mapping[str, Any], names: _Names | None) -> dict[str, Any]:
    """What a schedule was made from, as far as the server and the mark say it."""
    reference = item.pipeline_version_reference
    pipeline = names.pipeline(str(reference.pipeline_id or "")) if names and reference else None
    experiment = names.experiment(str(item.experiment_id or "")) if names else None
    trigger = item.trigger.cron_schedule if item.trigger else None
    found = {
        "cron": str(trigger.cron) if trigger else None,
        "pipeline": pipeline,
        "version": known.get("version"),
        "experiment": experiment,
        "enabled": known.get("enabled"),
    }
    # Where none was asked for, the server fills in its own.
    account = {"service_account": item.service_account if known.get("account") else None}
    return {**{key: value for key, value in found.items() if value is not None}, **account}


def plan(
    desired: Desired,
    existing: list[Existing],
    version_id: str | None,
    *,
    recreate: bool = False,
    now: datetime | None = None,
) -> Plan:
    """Compare what is wanted with what is there.

    Args:
        desired: The run file's schedule.
        existing: The schedules of that name, the oldest first.
        version_id: The wanted version on the server; None where it is not uploaded yet.
        recreate: Replace even an equal one.
        now: The time, for tests.
    """
    if not existing:
        return Plan("create", None, (), desired.enabled, ("there is none",))
    fires = desired.enabled and _fires(existing)
    keep = None
    if not recreate:
        moment = now or datetime.now(UTC)
        usable = [
            one
            for one in existing
            if one.digest == desired.digest
            and one.version_id == version_id
            and not (len(existing) > 1 and fires and _would_fire_at_once(one, moment))
        ]
        keep = usable[-1] if usable else None
    rest = tuple(one for one in existing if one is not keep)
    if keep is not None and not rest and (keep.enabled == fires):
        return Plan("leave", keep, (), fires, ())
    if keep is not None:
        return Plan("finish", keep, rest, fires, ("an earlier replacement was interrupted",))
    return Plan(
        "replace", None, rest, fires, tuple(_differences(desired, existing[-1], version_id))
    )


def _fires(existing: list[Existing]) -> bool:
    """Whether the schedule is meant to fire; not, if somebody paused it."""
    last = existing[-1]
    if last.content.get("enabled") is False:
        return True  # the run file had switched it off, nobody paused it
    if len(existing) == 1:
        return last.enabled
    return any(one.enabled for one in existing) or last.fires_finally


def _would_fire_at_once(one: Existing, now: datetime) -> bool:
    """Whether KFP, when this one is switched on, would make up for a time that has passed."""
    if one.enabled or not one.cron:
        return False
    following = next(parse(one.cron).after(one.created, ZoneInfo(one.time_zone)), None)
    return following is not None and following <= now


def _differences(desired: Desired, old: Existing, version_id: str | None) -> list[str]:
    found = [
        f"{key}: {old.content[key]} -> {value}"
        for key, value in desired.content.items()
        if key in old.content and old.content[key] != value
    ]
    if not found and old.version_id != version_id:
        found = ["its pipeline version was deleted from the server"]
    return found or ["it is made again, as asked"]


def the_one(existing: list[Existing], name: str) -> Existing:
    """The schedule of a name that is in use.

    Raises:
        ClusterError: There is none, or a replacement was interrupted.
    """
    if not existing:
        raise NotOnServer(
            f"There is no schedule {name!r}.",
            fix="`graftline schedule list` shows all; `graftline schedule apply` makes one.",
        )
    if len(existing) > 1:
        raise ClusterError(
            f"There are {len(existing)} schedules {name!r}: a replacement was interrupted.",
            fix="Run `graftline schedule apply` again; it finishes it.",
        )
    return existing[0]


def version_of(cluster: Cluster, one: Existing) -> Version:
    """The pipeline version of a schedule.

    Raises:
        ClusterError: It was deleted.
    """
    try:
        found = cluster.call(
            "looking for the schedule's pipeline version",
            cluster.client.get_pipeline_version,
            pipeline_id=one.pipeline_id,
            pipeline_version_id=one.version_id,
        )
    except NotOnServer:
        raise ClusterError(
            f"The pipeline version of the schedule {one.name!r} was deleted from the server.",
            why="A schedule refers to the version that it was made with.",
            fix="Run `graftline schedule apply` again: it uploads the version and replaces the "
            "schedule.",
        ) from None
    return Version(one.pipeline_id, one.version_id, str(found.display_name), uploaded=False)


def fires_at(cron: str, zone: str, count: int = 3) -> list[str]:
    """The next times at which a schedule fires, for people and programs."""
    parsed: Cron = parse(cron)
    return [moment.isoformat() for moment in next_times(parsed, count, ZoneInfo(zone))]

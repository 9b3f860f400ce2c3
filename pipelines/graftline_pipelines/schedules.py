"""Keeps a schedule on a cluster the same as the run file says.

KFP cannot change a schedule: it can only be made, switched on or off, and deleted. A change is
therefore a replacement, and it is done in an order in which at every moment at least one schedule
exists and at most one fires, wherever it is interrupted:

    1. the new one is made, switched off
    2. the old one is switched off
    3. the new one is switched on         between 2 and 3, neither fires: no time to fire falls
    4. the old one is deleted             there, since step 2 waits for the next one to pass

A run that the old one has started goes on: the old one is deleted without its runs, which
Kubernetes would otherwise delete with it.

What each schedule was made from, and whether it should fire in the end, stands in its description.
The next ``apply`` reads it and finishes what was interrupted.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from graftline.errors import ClusterError, ConfigurationError
from graftline_pipelines.cluster import Cluster, Version, equals
from graftline_pipelines.cron import Cron, next_times, parse
from graftline_pipelines.kfp_errors import NotOnServer
from graftline_pipelines.settings import RunSettings

MARK = "graftline: "
GUARD = timedelta(seconds=30)  # no switching this shortly before a schedule fires
SETTLE_SECONDS = 15  # nor this shortly after: KFP's controller looks every ten seconds

Action = Literal["create", "replace", "leave", "finish"]


@dataclass(frozen=True)
class Wanted:
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
        """What the server is told; a difference in it is a reason to replace."""
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
    """A schedule on the server that we made."""

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


def wanted(settings: RunSettings, pipeline: str, version: str) -> Wanted:
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
    return Wanted(
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
    return [found for item in listed if (found := _existing(item)) is not None]


def _existing(item: Any) -> Existing | None:
    mark = next(
        (line for line in (item.description or "").splitlines() if line.startswith(MARK)), None
    )
    if mark is None:
        return None  # somebody else's
    try:
        known = json.loads(mark.removeprefix(MARK))
    except ValueError:
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
        known.get("content", {}),
        bool(known.get("fires", True)),
        str(known.get("time_zone", "UTC")),
        item,
    )


def plan(
    wish: Wanted,
    there: list[Existing],
    version_id: str | None,
    *,
    recreate: bool = False,
    now: datetime | None = None,
) -> Plan:
    """Compare what is wanted with what is there.

    Args:
        wish: The run file's schedule.
        there: The schedules of that name, the oldest first.
        version_id: The wanted version on the server; None where it is not uploaded yet.
        recreate: Replace even an equal one.
        now: The time, for tests.
    """
    if not there:
        return Plan("create", None, (), wish.enabled, ("there is none",))
    fires = wish.enabled and _fires(there)
    keep = None
    if not recreate:
        moment = now or datetime.now(UTC)
        usable = [
            one
            for one in there
            if one.digest == wish.digest
            and one.version_id == version_id
            and not (len(there) > 1 and fires and _would_fire_at_once(one, moment))
        ]
        keep = usable[-1] if usable else None
    rest = tuple(one for one in there if one is not keep)
    if keep is not None and not rest and (keep.enabled == fires):
        return Plan("leave", keep, (), fires, ())
    if keep is not None:
        return Plan("finish", keep, rest, fires, ("an earlier replacement was interrupted",))
    return Plan("replace", None, rest, fires, tuple(_differences(wish, there[-1], version_id)))


def _fires(there: list[Existing]) -> bool:
    """Whether the schedule is meant to fire; not, if somebody paused it."""
    if len(there) == 1:
        return there[0].enabled
    return any(one.enabled for one in there) or there[-1].fires_finally


def _would_fire_at_once(one: Existing, now: datetime) -> bool:
    """Whether KFP, when this one is switched on, would make up for a time that has passed."""
    if one.enabled or not one.cron:
        return False
    following = next(parse(one.cron).after(one.created, ZoneInfo(one.time_zone)), None)
    return following is not None and following <= now


def _differences(wish: Wanted, old: Existing, version_id: str | None) -> list[str]:
    found = [
        f"{key}: {old.content.get(key)} -> {value}"
        for key, value in wish.content.items()
        if old.content.get(key) != value
    ]
    if not found and old.version_id != version_id:
        found = ["its pipeline version was deleted from the server"]
    return found or ["it is made again, as asked"]


class Reconciler:
    """Carries a plan out.

    Args:
        cluster: The server.
        say: Told of each step.
        sleep: Waits some seconds; replaced in tests.
        clock: Tells the time; replaced in tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.cluster = cluster
        self._api = cluster.client._recurring_run_api
        self._say = say
        self._sleep = sleep
        self._clock = clock

    def apply(self, todo: Plan, wish: Wanted, version: Version) -> str:
        """Carry a plan out; may be interrupted anywhere and called again. Returns the id."""
        if todo.action == "leave" and todo.keep is not None:
            return todo.keep.schedule_id
        if todo.action == "create":
            return self._create(wish, version, on=todo.fires, fires=todo.fires)
        new_id = (
            todo.keep.schedule_id
            if todo.keep is not None
            else self._create(wish, version, on=False, fires=todo.fires)
        )
        self._swap(new_id, todo, wish)
        for old in todo.remove:
            self.remove(old)
        return new_id

    def _swap(self, new_id: str, todo: Plan, wish: Wanted) -> None:
        """Switch the old ones off and the new one on, away from any time to fire."""
        if todo.keep is None or not todo.keep.enabled:
            self._wait_for_quiet([wish.cron, *(old.cron for old in todo.remove)], wish.time_zone)
        switched_off = []
        try:
            for old in todo.remove:
                if old.enabled:
                    switched_off.append(old)
                    self._switch(old.schedule_id, on=False)
            if todo.fires and not (todo.keep is not None and todo.keep.enabled):
                self._switch(new_id, on=True)
        except BaseException:
            self._undo(new_id, switched_off)
            raise

    def _undo(self, new_id: str, switched_off: list[Existing]) -> None:
        """Let the old ones fire again, unless the new one does after all: its answer got lost."""
        try:
            if self._get(new_id).mode != "ENABLE":
                for old in switched_off:
                    self._switch(old.schedule_id, on=True)
        except ClusterError:
            self._say("No schedule may be firing now: run `graftline schedule apply` again.")

    def _wait_for_quiet(self, crons: list[str], zone: str) -> None:
        for _ in range(5):
            now = self._clock()
            settling = timedelta(seconds=SETTLE_SECONDS)
            close = [
                moment
                for cron in crons
                if cron
                for moment in next_times(parse(cron), 2, ZoneInfo(zone), now - settling)
                if moment - now < GUARD
            ]
            if not close:
                return
            wait = (max(close) - now + settling).total_seconds()
            self._say(f"Waiting {wait:.0f} s: this is a time at which the schedule fires.")
            self._sleep(wait)

    def _create(self, wish: Wanted, version: Version, *, on: bool, fires: bool) -> str:
        mark = {
            "digest": wish.digest,
            "fires": fires,
            "time_zone": wish.time_zone,
            "content": wish.content,
        }
        description = f"Kept by `graftline schedule apply`; do not edit.\n{MARK}{json.dumps(mark)}"
        return self._make(
            on=on,
            display_name=wish.name,
            description=description,
            experiment_id=self.cluster.experiment(wish.experiment),
            cron=wish.cron,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=wish.service_account,
        )

    def _make(self, *, on: bool, cron: str, pipeline_id: str, version_id: str, **rest: Any) -> str:
        import kfp_server_api as api

        body = api.V2beta1RecurringRun(
            mode=api.RecurringRunMode.ENABLE if on else api.RecurringRunMode.DISABLE,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
            pipeline_version_reference=api.V2beta1PipelineVersionReference(
                pipeline_id=pipeline_id, pipeline_version_id=version_id
            ),
            runtime_config=api.V2beta1RuntimeConfig(parameters={}),
            max_concurrency="1",
            no_catchup=True,
            **rest,
        )
        made = self.cluster.call(
            f"the schedule {rest['display_name']!r}",
            self._api.recurring_run_service_create_recurring_run,
            recurring_run=body,
        )
        return str(made.recurring_run_id)

    def _get(self, schedule_id: str) -> Any:
        return self.cluster.call(
            "looking at a schedule",
            self.cluster.client.get_recurring_run,
            recurring_run_id=schedule_id,
        )

    def _switch(self, schedule_id: str, *, on: bool) -> None:
        client = self.cluster.client
        method = client.enable_recurring_run if on else client.disable_recurring_run
        doing = f"switching a schedule {'on' if on else 'off'}"
        self.cluster.call(doing, method, recurring_run_id=schedule_id)

    def pause(self, one: Existing) -> None:
        """Switch a schedule off until it is resumed."""
        self._switch(one.schedule_id, on=False)

    def resume(self, one: Existing) -> None:
        """Switch a schedule on again, without making up for what it missed.

        KFP would run the last time that passed while it was off. So where one has passed, the
        schedule is made again before the old one is deleted.
        """
        zone = ZoneInfo(one.time_zone)
        missed = next(parse(one.cron).after(one.created, zone), None)
        if missed is None or missed > self._clock():
            self._switch(one.schedule_id, on=True)
            return
        self._make(
            on=True,
            display_name=one.name,
            description=one.raw.description,
            experiment_id=one.raw.experiment_id,
            cron=one.cron,
            pipeline_id=one.pipeline_id,
            version_id=one.version_id,
            service_account=one.raw.service_account or None,
        )
        self.remove(one)

    def remove(self, one: Existing) -> None:
        """Delete a schedule; one that is gone already is fine. A run that is going goes on."""
        for run in self.cluster.going(one.schedule_id):
            self._say(f"{run.display_name} ({run.run_id}), which it started, goes on.")
        try:
            self.cluster.call(
                "deleting a schedule",
                self._api.recurring_run_service_delete_recurring_run,
                recurring_run_id=one.schedule_id,
                propagation_policy="ORPHAN",  # else a run that is going is deleted with it
            )
        except NotOnServer:
            self._say(f"The schedule {one.schedule_id} was gone already.")


def the_one(there: list[Existing], name: str) -> Existing:
    """The schedule of a name that is in use.

    Raises:
        ClusterError: There is none, or a replacement was interrupted.
    """
    if not there:
        raise NotOnServer(
            f"There is no schedule {name!r}.",
            fix="`graftline schedule list` shows all; `graftline schedule apply` makes one.",
        )
    if len(there) > 1:
        raise ClusterError(
            f"There are {len(there)} schedules {name!r}: a replacement was interrupted.",
            fix="Run `graftline schedule apply` again; it finishes it.",
        )
    return there[0]


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

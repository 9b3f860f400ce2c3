"""Carries out the change of a schedule on a cluster.

KFP cannot change a schedule: it can only be made, switched on or off, and deleted. A change is
therefore a replacement, and it is done in an order in which at every moment at least one schedule
exists and at most one fires, wherever it is interrupted:

    1. the new one is made, switched off
    2. the old one is switched off
    3. the new one is switched on         between 2 and 3, neither fires: no time to fire falls
    4. the old one is deleted             there, since step 2 waits for the next one to pass

A run that the old one has started goes on: the old one is deleted without its runs, which
Kubernetes would otherwise delete with it.

What each schedule was made from, and whether it should fire in the end, is in its description.
The next ``apply`` reads it and finishes what was interrupted.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from graftline.errors import ClusterError
from graftline_pipelines.cluster.errors import NotOnServer
from graftline_pipelines.cluster.scheduling.schedules import (
    Desired,
    Existing,
    Plan,
    describe,
    describe_again,
)
from graftline_pipelines.cluster.server import Cluster, Version
from graftline_pipelines.runfile.cron import next_times, parse

GUARD = timedelta(seconds=30)  # no switching this shortly before a schedule fires
SETTLE_SECONDS = 15  # nor this shortly after: KFP's controller looks every ten seconds


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

    def apply(self, todo: Plan, desired: Desired, version: Version) -> str:
        """Carry a plan out; may be interrupted anywhere and called again. Returns the id."""
        if todo.action == "leave" and todo.keep is not None:
            return todo.keep.schedule_id
        if todo.action == "create":
            return self._create(desired, version, on=todo.fires, fires=todo.fires)
        new_id = (
            todo.keep.schedule_id
            if todo.keep is not None
            else self._create(desired, version, on=False, fires=todo.fires)
        )
        self._swap(new_id, todo, desired)
        for old in todo.remove:
            self.remove(old)
        return new_id

    def _swap(self, new_id: str, todo: Plan, desired: Desired) -> None:
        """Switch the old ones off and the new one on, away from any time to fire."""
        if todo.keep is None or not todo.keep.enabled:
            self._wait_for_quiet(
                [desired.cron, *(old.cron for old in todo.remove)], desired.time_zone
            )
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

    def _create(self, desired: Desired, version: Version, *, on: bool, fires: bool) -> str:
        return self._make(
            on=on,
            display_name=desired.name,
            description=describe(desired, fires=fires),
            experiment_id=self.cluster.experiment(desired.experiment),
            cron=desired.cron,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=desired.service_account,
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
            description=describe_again(one),
            experiment_id=one.raw.experiment_id,
            cron=one.cron,
            pipeline_id=one.pipeline_id,
            version_id=one.version_id,
            service_account=one.raw.service_account or None,
        )
        self.remove(one)

    def remove(self, one: Existing) -> None:
        """Delete a schedule; one that is gone already is fine. A run that has started goes on."""
        for run in self.cluster.active_runs(one.schedule_id):
            self._say(f"{run.display_name} ({run.run_id}), which it started, goes on.")
        try:
            self.cluster.call(
                "deleting a schedule",
                self._api.recurring_run_service_delete_recurring_run,
                recurring_run_id=one.schedule_id,
                propagation_policy="ORPHAN",  # else a run that has started is deleted with it
            )
        except NotOnServer:
            self._say(f"The schedule {one.schedule_id} was gone already.")

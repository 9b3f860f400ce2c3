"""Cron as the scheduler of Kubeflow Pipelines reads it, so that mistakes show before they are sent.

KFP takes six fields (second, minute, hour, day of month, month, day of week). Given five, it does
not complain: it reads the minute as the second and fires every hour. Where both days are
restricted, a day fits if either does. Reference: the Go package robfig/cron, version 1. The fields
are read here, for the messages and for what robfig reads in another way; CronSim finds the times.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim

from graftline.errors import ConfigurationError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
HORIZON_DAYS = 5 * 366  # as far as KFP itself looks for the next time

_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_PART = re.compile(r"^(?P<low>\*|\?|\w+)(-(?P<high>\w+))?(/(?P<step>\d+))?$")


@dataclass(frozen=True)
class Cron:
    """A parsed expression: for each field the values that fit."""

    text: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def after(self, moment: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
        """The times at which it fires after a moment, in UTC, in order.

        Args:
            moment: An aware time.
            zone: The time zone of the cluster's scheduler.
        """
        every = (self.seconds, self.minutes, self.hours, self.days, self.months, self.weekdays)
        text = " ".join(",".join(map(str, sorted(values))) for values in every)
        times = CronSim(text, moment.astimezone(zone))
        # CronSim sees no star in the written-out values, and takes '?' for none.
        times.day_and = self.any_day or self.any_weekday
        horizon = moment + timedelta(days=HORIZON_DAYS)
        for local in times:
            fired = local.astimezone(UTC)
            if fired >= horizon:
                return
            yield fired


def parse(text: str) -> Cron:
    """Read an expression of six fields.

    Raises:
        ConfigurationError: saying which field is wrong, and how it would be right.
    """
    fields = text.split()
    if len(fields) == 5:
        raise ConfigurationError(
            f"schedule.cron: {text!r} has five fields",
            why="Kubeflow Pipelines counts seconds first and would read the minute as the second, "
            "so that it fires every hour.",
            fix=f"Write the second in front: {'0 ' + text!r}.",
        )
    if len(fields) != len(_FIELDS):
        raise ConfigurationError(
            f"schedule.cron: {text!r} has {len(fields)} fields, not six",
            fix="Write second, minute, hour, day of month, month and day of week: "
            "'0 30 2 * * *' is every day at 02:30:00.",
        )
    second, minute, hour, day, month, weekday = (
        _field(text, field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)
    )
    any_day, any_weekday = (
        any(part[0] in "*?" for part in fields[index].split(",")) for index in (3, 5)
    )
    cron = Cron(text, second, minute, hour, day, month, weekday, any_day, any_weekday)
    _check_rate(cron)
    return cron


def _check_rate(cron: Cron) -> None:
    times = cron.after(datetime.now(UTC))
    first = next(times, None)
    if first is None:
        raise ConfigurationError(
            f"schedule.cron: {cron.text!r} never fires",
            why="No day within five years fits both its month and its day.",
            fix="Check the day of month against the month.",
        )
    if len(cron.seconds) > 1:
        raise ConfigurationError(
            f"schedule.cron: {cron.text!r} fires more often than once a minute",
            why=f"Its first field, the second, fits {len(cron.seconds)} values.",
            fix="Write one second, such as 0, in the first field.",
        )


def _field(text: str, field: str, name: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in field.split(","):
        match = _PART.match(part)
        if match is None:
            raise _wrong(text, name, part, "is not a number, a range such as 1-5, or a step")
        step = int(match["step"] or 1)
        if step == 0:
            raise _wrong(text, name, part, "has a step of zero")
        if match["low"] in ("*", "?"):
            if match["high"] is not None:
                raise _wrong(text, name, part, "mixes a range with a star")
            start, end = low, high
        else:
            start = _number(text, name, match["low"])
            end = start if match["high"] is None else _number(text, name, match["high"])
            if match["high"] is None and match["step"] is not None:
                end = high
        if start < low or end > high:
            hint = "; Sunday is 0" if name == "day of week" else ""
            raise _wrong(text, name, part, f"lies outside {low} to {high}{hint}")
        if start > end:
            raise _wrong(text, name, part, "starts after its end")
        values.update(range(start, end + 1, step))
    return frozenset(values)


def _number(text: str, name: str, word: str) -> int:
    names = {"month": MONTHS, "day of week": DAYS}.get(name, ())
    if word.lower() in names:
        return names.index(word.lower()) + (1 if name == "month" else 0)
    if not word.isdigit():
        raise _wrong(text, name, word, "is not a number" + (" or a name" if names else ""))
    return int(word)


def _wrong(text: str, name: str, part: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"schedule.cron: in {text!r} the {name} {part!r} {what}",
        fix="The fields are: second, minute, hour, day of month, month, day of week.",
    )


def next_times(
    cron: Cron, count: int, zone: tzinfo = UTC, now: datetime | None = None
) -> list[datetime]:
    """The next times at which it fires, in UTC."""
    times = cron.after(now or datetime.now(UTC), zone)
    return [time for _, time in zip(range(count), times, strict=False)]

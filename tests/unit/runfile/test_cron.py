"""Cron as Kubeflow Pipelines reads it."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from graftline.errors import ConfigurationError
from graftline_pipelines.runfile.cron import Cron, next_times, parse

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # a Sunday


def stamps(text: str, count: int, zone: str = "UTC", start: datetime = START) -> list[str]:
    times = next_times(parse(text), count, ZoneInfo(zone), start)
    return [time.strftime("%Y-%m-%d %H:%M:%S") for time in times]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 30 2 * * *", ["2026-03-02 02:30:00", "2026-03-03 02:30:00"]),
        ("15 0 */12 * * ?", ["2026-03-01 12:00:15", "2026-03-02 00:00:15"]),
        ("0 0 9 ? * MON-FRI", ["2026-03-02 09:00:00", "2026-03-03 09:00:00"]),
        ("0 0 0 1 1,7 *", ["2026-07-01 00:00:00", "2027-01-01 00:00:00"]),
        ("0 50/5 12 1 mar *", ["2026-03-01 12:50:00", "2026-03-01 12:55:00"]),
        ("0 0 0 29 2 *", ["2028-02-29 00:00:00"]),
    ],
)
def test_fires_at(text: str, expected: list[str]) -> None:
    assert stamps(text, len(expected)) == expected


def test_with_both_days_restricted_either_one_fits() -> None:
    # the 10th, or a Monday
    assert stamps("0 0 0 10 * 1", 4) == [
        "2026-03-02 00:00:00",
        "2026-03-09 00:00:00",
        "2026-03-10 00:00:00",
        "2026-03-16 00:00:00",
    ]


def test_a_star_with_a_step_still_counts_as_a_star() -> None:
    """As in robfig/cron 1: with '*/2' for the day, a Monday must also be an odd day."""
    assert stamps("0 0 0 */2 * 1", 2) == ["2026-03-09 00:00:00", "2026-03-23 00:00:00"]


def test_agrees_with_a_walk_through_every_minute() -> None:
    cron = parse("0 7-50/13 1,5-7 */9 2-4 tue,4-6")
    walked = []
    moment = START
    while len(walked) < 60:
        moment += timedelta(minutes=1)
        fits_day = moment.day in (1, 10, 19, 28) and moment.isoweekday() % 7 in (2, 4, 5, 6)
        if (
            moment.minute in (7, 20, 33, 46)
            and moment.hour in (1, 5, 6, 7)
            and moment.month in (2, 3, 4)
            and fits_day
        ):
            walked.append(moment)
    assert list(islice(cron.after(START), 60)) == walked


def test_the_zone_of_the_scheduler_counts_and_summer_time_is_known() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    # 02:30 does not exist on the 29th in Berlin; the day after, it is 00:30 in UTC
    assert stamps("0 30 2 * * *", 2, "Europe/Berlin", start) == [
        "2026-03-30 00:30:00",
        "2026-03-31 00:30:00",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("30 2 * * *", "'0 30 2 * * *'"),
        ("@daily", "has 1 fields"),
        ("0 0 0 * * 7", "Sunday is 0"),
        ("0 60 0 * * *", "the minute '60' lies outside 0 to 59"),
        ("0 0 5-2 * * *", "starts after its end"),
        ("0 0 */0 * * *", "step of zero"),
        ("0 0 x * * *", "the hour 'x' is not a number"),
        ("0 0 0 L * *", "day of month 'L'"),
        ("0 0 0 30 2 *", "never fires"),
        ("* 0 0 * * *", "more often than once a minute"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert said in str(caught.value)


def robfig(cron: Cron, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """The next time as SpecSchedule.Next of robfig/cron 1 finds it, line by line from Go.

    Go's Add moves in real time; Date sets the clock on the wall.
    """

    def add(time: datetime, **step: int) -> datetime:
        return (time.astimezone(UTC) + timedelta(**step)).astimezone(zone)

    def fits(time: datetime) -> bool:
        day = time.day in cron.days
        weekday = time.isoweekday() % 7 in cron.weekdays
        return day and weekday if cron.any_day or cron.any_weekday else day or weekday

    time = add(moment.astimezone(zone).replace(microsecond=0), seconds=1)
    added, limit = False, time.year + 5
    while time.year <= limit:
        while time.month not in cron.months:
            if not added:
                time = time.replace(day=1, hour=0, minute=0, second=0)
            added = True
            year, month = (time.year + 1, 1) if time.month == 12 else (time.year, time.month + 1)
            time = time.replace(year=year, month=month)
            if month == 1:
                break
        if time.month not in cron.months:
            continue
        wrapped = False
        for kind in ("day", "hour", "minute", "second"):
            wanted = {"hour": cron.hours, "minute": cron.minutes, "second": cron.seconds}
            while not (fits(time) if kind == "day" else getattr(time, kind) in wanted[kind]):
                if not added:
                    names = ("hour", "minute", "second")
                    after = ("day", *names).index(kind)
                    time = time.replace(**dict.fromkeys(names[after:], 0))
                added = True
                if kind == "day":
                    next_day = (time.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
                    time, wrapped = next_day, next_day.day == 1
                else:
                    time = add(time, **{f"{kind}s": 1})
                    below = {"hour": "hour", "minute": "minute", "second": "second"}[kind]
                    wrapped = getattr(time, below) == 0
                if wrapped:
                    break
            if wrapped:
                break
        if not wrapped:
            return time.astimezone(UTC)
    return None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "text",
    [
        "0 30 2 * * *",  # an hour that is skipped in spring and repeated in autumn
        "0 0 * * * *",
        "0 15,45 1-3 * * *",
        "30 */20 */5 * * ?",
        "0 0 6 10,31 * 1",
        "0 0 6 */2 * 1",
        "0 0 6 ? * 1/2",  # CronSim alone would end the week with a second Sunday
        "0 0 0 29 2 *",
        "0 5 4 31 1-12/2 *",
    ],
)
def test_agrees_with_the_scheduler_s_own_way(text: str, zone: str) -> None:
    cron, place = parse(text), ZoneInfo(zone)
    for start in (datetime(2026, 3, 7, 5, 0, 0, 5, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)):
        moment, expected = start, []
        for _ in range(40):
            found = robfig(cron, moment, place)
            if found is None or found >= start + timedelta(days=5 * 366):
                break
            expected.append(found)
            moment = found
        assert list(islice(cron.after(start, place), len(expected))) == expected

"""Cron as Kubeflow Pipelines reads it."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from graftline.errors import ConfigurationError
from graftline_pipelines.runfile.cron import next_times, parse

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

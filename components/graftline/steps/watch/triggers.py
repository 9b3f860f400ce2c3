"""Whether training starts: `retrain.when` applied to what was found, with the reasons."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from graftline.stats.wording import counted
from graftline.steps.watch.drift import Drift


@dataclasses.dataclass(frozen=True)
class Found:
    """What a check of the source gave.

    Attributes:
        new: Images that the champion's snapshot does not know, and those with new content.
        relabelled: Images under another label.
        removed: Images that are gone.
        known: Images of the champion's snapshot.
        estimated: Whether ``new`` is an estimate from the size of archives.
        age_days: Since the champion was made; None where it is not known.
        drift: The two-sample test; None where it was not made.
        drift_not_made: Why it was not.
    """

    new: int
    relabelled: int
    removed: int
    known: int
    estimated: bool = False
    age_days: float | None = None
    drift: Drift | None = None
    drift_not_made: str = ""

    @property
    def anything(self) -> bool:
        """Whether the data differs from the champion's at all."""
        return bool(self.new or self.relabelled or self.removed)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One condition of `retrain.when`, and whether it holds."""

    key: str
    met: bool
    sentence: str
    about_data: bool = True


def judge(when: Mapping[str, Any], found: Found) -> list[Rule]:
    """Apply every condition that is set; any one that holds starts training.

    Args:
        when: ``retrain.when`` of the run file.
        found: What the check gave.
    """
    about = "about " if found.estimated else ""
    rules = []
    if when.get("always"):
        rules.append(
            Rule("always", True, "`always` is set: training starts at every check.", False)
        )
    limit = when.get("new_images")
    if limit is not None:
        rules.append(
            Rule(
                "new_images",
                found.new >= limit,
                f"{about}{counted(found.new, 'new image')}; training starts from {limit:,}.",
            )
        )
    share = when.get("new_fraction")
    if share is not None:
        actual = found.new / max(found.known, 1)
        rules.append(
            Rule(
                "new_fraction",
                found.new > 0 and actual >= share,
                f"{about}{counted(found.new, 'new image is', 'new images are')} {actual:.1%} of "
                f"the champion's {found.known:,}; training starts from {share:.1%}.",
            )
        )
    limit = when.get("labels_changed")
    if limit is not None:
        rules.append(
            Rule(
                "labels_changed",
                found.relabelled >= limit,
                f"{counted(found.relabelled, 'image carries', 'images carry')} another label; "
                f"training starts from {limit:,}.",
            )
        )
    if when.get("drift") is not None:
        rules.append(_drift_rule(found))
    limit = when.get("max_age_days")
    if limit is not None:
        rules.append(_age_rule(limit, found.age_days))
    return rules


def _drift_rule(found: Found) -> Rule:
    if found.drift is None:
        return Rule("drift", False, f"Drift was not tested: {found.drift_not_made}.")
    return Rule("drift", found.drift.found, found.drift.sentence())


def _age_rule(limit: float, age: float | None) -> Rule:
    if age is None:
        return Rule("max_age_days", False, "The champion's age is not known.", False)
    return Rule(
        "max_age_days",
        age >= limit,
        f"The champion is {age:.1f} days old; training starts from {limit:g}.",
        False,
    )

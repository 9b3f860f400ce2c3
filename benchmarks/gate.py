"""How often the gate errs: simulated retrainings, decided by the gate itself with its defaults.

    python benchmarks/gate.py                      10,000 retrainings a main kind, minutes
    python benchmarks/gate.py --simulations 500    a quick look

Each retraining is a new test split and two models whose true accuracies are known: every
image is right by chance for the champion, and the challenger differs from it on a share of the
images such that its true accuracy is the champion's plus the stated difference. Grouped images are
right or wrong together in seven groups of ten. "Same data" means that both were trained on one
snapshot, where the gate wants a measurable gain.

Columns: the share promoted with its exact 95% interval, and the limit. With --json the last line
is one JSON object: `false_promotion` (the largest share of truly worse models that were promoted,
worse by twice the margin), `power` (the smallest share of truly better ones, by 2 points on 2,000
images), and `simulations` of the two main kinds; the others get a fifth of them. The exit status is
1 where a limit is missed.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from graftline import machine
from graftline.stats.intervals import share_interval
from graftline.steps.evaluate.config import GateSettings
from graftline.steps.evaluate.gate import Champion, Evidence, decide

RULES = GateSettings()
CLASSES = tuple("0123456789")
TOGETHER = 0.7  # share of the groups whose images are right or wrong as one
MOST_FALSE, LEAST_POWER = 0.05, 0.80
PIECE = 250  # simulations of one task


@dataclass(frozen=True)
class Kind:
    """One kind of retraining.

    Attributes:
        name: For the table.
        difference: True accuracy of the challenger minus that of the champion.
        disagree: Share of the images that only one of the two gets right.
        champion: True accuracy of the champion.
        images: In the test split.
        group: Images in a group.
        same_data: Whether both were trained on one snapshot.
        lost_class: Points of recall that one class of ten loses, at an equal accuracy of all.
        limit: ``false`` for at most 5%, ``power`` for at least 80%, empty for none.
    """

    name: str
    difference: float
    disagree: float = 0.10
    champion: float = 0.90
    images: int = 2000
    group: int = 1
    same_data: bool = False
    lost_class: float = 0.0
    limit: str = ""

    def simulations(self, wanted: int) -> int:
        """How many of it are made."""
        return wanted if self in MAIN else max(1, wanted // 5)


WORSE, BETTER = -2 * RULES.margin, 0.02
KINDS = (
    Kind("worse by twice the margin", WORSE, limit="false"),
    Kind("worse, the two hardly differ", WORSE, disagree=0.04, champion=0.95, limit="false"),
    Kind("worse, 300 test images", WORSE, images=300, limit="false"),
    Kind("worse, in groups of 5", WORSE, group=5, limit="false"),
    Kind("better by 2 points", BETTER, limit="power"),
    Kind("better, the two differ much", BETTER, disagree=0.20, champion=0.80, limit="power"),
    Kind("better, same data", BETTER, same_data=True, limit="power"),
    Kind("better, in groups of 5", BETTER, group=5),
    Kind("worse by the margin", -RULES.margin),
    Kind("equal", 0.0),
    Kind("equal, same data", 0.0, same_data=True),
    Kind("equal, one class loses 20 points", 0.0, lost_class=0.20),
)
MAIN = (KINDS[0], KINDS[4])


def retraining(kind: Kind, rng: np.random.Generator) -> Evidence:
    """The answers of both models to a test split, drawn by the truth of ``kind``."""
    units = kind.images // kind.group
    unit_of = np.repeat(np.arange(units), kind.group)
    labels = rng.integers(0, len(CLASSES), units)[unit_of]

    def chance() -> np.ndarray:
        """Uniform for each image; one value for the images of a group that go together."""
        alone = rng.random(len(unit_of))
        if kind.group == 1:
            return alone
        one = rng.random(units) < TOGETHER
        return np.where(one[unit_of], rng.random(units)[unit_of], alone)

    difference = np.full(len(unit_of), kind.difference)
    if kind.lost_class:
        # The other classes make up for what the first one loses.
        difference = np.where(labels == 0, -kind.lost_class, kind.lost_class / (len(CLASSES) - 1))
    disagree = np.maximum(kind.disagree, np.abs(difference))
    gained, lost = (disagree + difference) / 2, (disagree - difference) / 2
    right = chance() < kind.champion
    switch = np.where(right, lost / kind.champion, gained / (1 - kind.champion))
    if switch.max() > 1:
        raise SystemExit(f"{kind.name}: two such models cannot be")
    new = np.where(chance() < switch, ~right, right)
    return Evidence(
        labels=labels,
        right=new,
        classes=CLASSES,
        majority=0,
        groups=unit_of if kind.group > 1 else None,
        champion=Champion(
            version="1",
            right=right,
            comparable=np.ones(len(right), dtype=bool),
            same_snapshot=kind.same_data,
        ),
    )


def promoted(task: tuple[Kind, int, int]) -> int:
    """How many of some retrainings of a kind the gate promotes."""
    kind, first, count = task
    total = 0
    for number in range(first, first + count):
        rng = np.random.default_rng([KINDS.index(kind), number])
        tests = decide(retraining(kind, rng), RULES, seed=number)
        total += all(test.passed for test in tests)
    return total


def limit_of(kind: Kind) -> str:
    """The limit as text."""
    return {"false": f"at most {MOST_FALSE:.0%}", "power": f"at least {LEAST_POWER:.0%}"}.get(
        kind.limit, ""
    )


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=10_000, help="of each main kind")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, width=120)
    started = time.monotonic()
    tasks = [
        (kind, first, min(PIECE, kind.simulations(arguments.simulations) - first))
        for kind in KINDS
        for first in range(0, kind.simulations(arguments.simulations), PIECE)
    ]
    counts = dict.fromkeys(KINDS, 0)
    with ProcessPoolExecutor(machine.cores()) as pool:
        for task, count in zip(tasks, pool.map(promoted, tasks), strict=True):
            counts[task[0]] += count
    table = Table(
        "retraining", "simulated", "images", "disagree", "promoted", "95% interval", "limit"
    )
    shares: dict[Kind, float] = {}
    for kind, count in counts.items():
        made = kind.simulations(arguments.simulations)
        shares[kind] = count / made
        low, high = share_interval(count, made, 0.95)
        table.add_row(
            kind.name,
            f"{made:,}",
            f"{kind.images:,}",
            f"{kind.disagree:.0%}",
            f"{shares[kind]:.2%}",
            f"{low:.2%} to {high:.2%}",
            limit_of(kind),
        )
    console.print(table)
    console.print(
        f"{sum(count for _, _, count in tasks):,} retrainings, {time.monotonic() - started:.0f} s."
    )
    false_promotion = max(share for kind, share in shares.items() if kind.limit == "false")
    power = min(share for kind, share in shares.items() if kind.limit == "power")
    if arguments.json:
        result = {
            "false_promotion": false_promotion,
            "power": power,
            "simulations": arguments.simulations,
            "kinds": {kind.name: share for kind, share in shares.items()},
        }
        print(json.dumps(result))
    sys.exit(int(false_promotion > MOST_FALSE or power < LEAST_POWER))


if __name__ == "__main__":
    main()

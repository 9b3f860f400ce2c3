"""Two promotions race, round after round: the better model holds the alias, always."""

import random
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from graftline.errors import PromotionConflict
from graftline.storage import open_store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import Registry, open_registry


class Contender:
    """A run that registers a model, is compared with the champion, and promotes it if better.

    A run whose champion changed underneath is refused; it is compared again, as a rerun is.
    """

    def __init__(
        self, registry: Registry, store: str, name: str, run_id: str, accuracy: float
    ) -> None:
        self.registry = registry
        self.store, self.name, self.accuracy = open_store(store), name, accuracy
        self.content = uuid.uuid4().hex
        self.version = self.registry.register(
            name,
            run_id=run_id,
            source=f"runs:/{run_id}/model-{self.content}",
            tags={"content_sha256": self.content},
            store=self.store,
        )

    def promote(self, barrier: threading.Barrier, known: dict[str, float]) -> None:
        champion = self.registry.champion(self.name)
        barrier.wait(timeout=60)
        while champion is None or self.accuracy > known[champion.version]:
            try:
                self.registry.promote(
                    self.version,
                    compared_with=champion.version if champion else None,
                    verdict=self.content,
                    store=self.store,
                    figures={"challenger": {"accuracy": self.accuracy}},
                )
            except PromotionConflict:
                champion = self.registry.champion(self.name)
            else:
                return


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
def test_the_better_of_two_holds_the_alias(
    mlflow_uri: str, tmp_path: Path, record_property: Any, rounds: int
) -> None:
    chance = random.Random(0)
    store, run_id = str(tmp_path / "store"), start_run(mlflow_uri, "promotions", "race")
    registries = [open_registry(mlflow_uri) for _ in range(2)]
    for number in range(rounds):
        if number % 20 == 0:  # the history of a model is read at each promotion
            name, best, known = f"better-{uuid.uuid4().hex[:8]}", 0.0, dict[str, float]()
        pair = [
            Contender(registry, store, name, run_id, best + chance.uniform(-0.01, 0.02))
            for registry in registries
        ]
        known |= {each.version.version: each.accuracy for each in pair}
        barrier = threading.Barrier(2)
        errors: list[BaseException] = []

        def work(contender: Contender, barrier=barrier, known=known, errors=errors) -> None:
            try:
                contender.promote(barrier, known)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(each,)) for each in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        best = max(known.values())
        held = str(connect(mlflow_uri).get_registered_model(name).aliases[ALIAS])
        assert known[held] == best, (number, held, known)
    record_property("points", rounds)

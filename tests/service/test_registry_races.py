"""Twenty processes promote at once, against a real MLflow server: exactly one wins each time."""

import itertools
import multiprocessing
import uuid

import pytest

from graftline.errors import PromotionConflict
from graftline.storage import open_store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.champion_log import ChampionLog
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import open_registry

PROCESSES = 20
FORK = multiprocessing.get_context("fork")  # the parent has imported MLflow: twenty times seconds


def contend(work, *arguments) -> list:
    """Run `work(number, barrier, *arguments)` in twenty processes; what each returned."""
    barrier, answers = FORK.Barrier(PROCESSES), FORK.Queue()

    def body(number: int) -> None:
        try:
            answers.put((number, work(number, barrier, *arguments)))
        except BaseException as error:
            barrier.abort()
            answers.put((number, error))

    children = [FORK.Process(target=body, args=(number,)) for number in range(PROCESSES)]
    for child in children:
        child.start()
    found = dict(answers.get(timeout=180) for _ in children)
    for child in children:
        child.join(timeout=30)
    return [found[number] for number in range(PROCESSES)]


def promote(number, barrier, uri, store, name, run_id, compared_with):
    """Register a model of one's own, wait for the others, promote it: its version if it won."""
    registry = open_registry(uri)
    content = uuid.uuid4().hex
    version = registry.register(
        name,
        run_id=run_id,
        source=f"runs:/{run_id}/model-{content}",
        tags={"content_sha256": content},
        store=open_store(store),
    )
    barrier.wait(timeout=120)
    try:
        promotion = registry.promote(
            version,
            compared_with=compared_with,
            verdict=content,
            store=open_store(store),
            figures={"challenger": {"accuracy": number / 100}},
        )
    except PromotionConflict:
        return version.version, False
    return version.version, promotion.in_force


@pytest.fixture
def arena(mlflow_uri, tmp_path):
    name = f"race-{uuid.uuid4().hex[:8]}"
    return mlflow_uri, str(tmp_path / "store"), name, start_run(mlflow_uri, "races", name)


def test_of_twenty_promotions_exactly_one_wins_and_replaces_what_it_was_compared_with(arena):
    uri, store, name, run_id = arena
    champion = None
    for round_number in range(1, 4):
        answers = contend(promote, uri, store, name, run_id, champion)
        assert not [a for a in answers if isinstance(a, BaseException)], answers
        winners = [version for version, won in answers if won]
        assert len(winners) == 1
        versions = {version for version, _ in answers}
        assert len(versions) == PROCESSES  # nobody's version was lost or shared
        aliases = connect(uri).get_registered_model(name).aliases
        assert str(aliases[ALIAS]) == winners[0]
        history = open_registry(uri).history(name)
        assert len(history) == round_number
        assert (history[-1].version, history[-1].replaced) == (winners[0], champion)
        assert ChampionLog(open_store(store), name).is_settled(round_number)
        champion = winners[0]


def register_equal(number, barrier, uri, store, name, run_id, content):
    registry = open_registry(uri)
    barrier.wait(timeout=120)
    version = registry.register(
        name,
        run_id=run_id,
        source=f"runs:/{run_id}/model",
        tags={"content_sha256": content},
        store=open_store(store),
    )
    return registry.find(name, content).version, version.version


def test_equal_models_registered_at_once_are_known_by_one_version(arena):
    uri, store, name, run_id = arena
    answers = contend(register_equal, uri, store, name, run_id, "same")
    assert not [str(a) for a in answers if isinstance(a, BaseException)]
    assert {version for version, _ in answers} == {"1"}


def promote_or_roll_back(number, barrier, uri, store, name, run_id, compared_with):
    if number % 4:
        return promote(number, barrier, uri, store, name, run_id, compared_with)
    registry = open_registry(uri)
    barrier.wait(timeout=120)
    return registry.rollback(name, "1" if number % 8 else "2").version, None


def test_promotions_among_rollbacks_leave_one_story(arena):
    uri, store, name, run_id = arena
    first = next(v for v, won in contend(promote, uri, store, name, run_id, None) if won)
    history = open_registry(uri).history(name)
    other = "2" if first == "1" else "1"
    open_registry(uri).rollback(name, other)
    contend(promote_or_roll_back, uri, store, name, run_id, other)
    history = open_registry(uri).history(name)
    for before, after in itertools.pairwise(history):
        assert after.number == before.number + 1
        assert after.replaced == before.version
    aliases = connect(uri).get_registered_model(name).aliases
    assert str(aliases[ALIAS]) == history[-1].version
    assert "moved by hand" not in {entry.kind for entry in history}

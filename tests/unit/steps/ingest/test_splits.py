"""Splits are for ever, and depend on nothing but the group's id and the seed."""

import random
from collections import Counter

import pytest

from graftline.steps.ingest.splits import Candidate, assign

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def ids(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return sorted(f"{generator.getrandbits(256):064x}" for _ in range(count))


def images(names: list[str], classes: int = 3, **more) -> list[Candidate]:
    return [Candidate(name, f"class {int(name[:8], 16) % classes}", **more) for name in names]


def split_of(candidates: list[Candidate], pairs=(), fractions=FRACTIONS, seed: int = 0):
    return assign(candidates, pairs, fractions, seed).splits


@pytest.mark.parametrize(
    "fractions", [FRACTIONS, {"train": 0.5, "val": 0.0, "test": 0.5}, {"train": 1.0}]
)
def test_shares_are_about_those_asked_for(fractions: dict[str, float]) -> None:
    splits = Counter(split_of(images(ids(6000)), fractions=fractions).values())
    for name, fraction in fractions.items():
        assert abs(splits[name] - 6000 * fraction) < 4 * (6000 * 0.25) ** 0.5


def test_another_seed_is_another_split() -> None:
    candidates = images(ids(300))
    one, two = (split_of(candidates, seed=seed) for seed in (0, 1))
    assert 80 < sum(one[i] != two[i] for i in one) < 220


def test_nothing_moves_over_random_additions_and_removals() -> None:
    """The property that makes a test set one: over 40 histories of 6 runs each."""
    for history in range(40):
        generator = random.Random(history)
        known = ids(120, seed=history)
        near = {}  # each a copy of an earlier one, unknown to the run that saw the first
        for name in known:
            if generator.random() < 0.2:
                near[name] = generator.choice(known)
        ever: dict[str, str] = {}
        for _ in range(6):
            present = sorted(generator.sample(known, generator.randrange(6, 120)))
            candidates = [Candidate(i, "ab"[int(i, 16) % 2], earlier=ever.get(i)) for i in present]
            place = {name: index for index, name in enumerate(present)}
            pairs = [
                (place[a], place[b])
                for a, b in near.items()
                if a in place and b in place and a != b
            ]
            result = assign(candidates, pairs, FRACTIONS, seed=0)
            assert set(result.splits) | set(result.ties) == set(present)
            for name, split in result.splits.items():
                assert ever.setdefault(name, split) == split
            newcomers = {i for i in present if candidates[place[i]].earlier is None}
            for a, b in pairs:
                one, two = present[a], present[b]
                if {one, two} & newcomers and one in result.splits and two in result.splits:
                    assert result.splits[one] == result.splits[two]


def test_equal_data_has_equal_splits_whatever_its_history() -> None:
    """In one run, or in five: classes of more than a few images need no help for a split."""
    everything = ids(600)
    at_once = split_of(images(everything))
    for seed in range(5):
        order = everything.copy()
        random.Random(seed).shuffle(order)
        ever: dict[str, str] = {}
        for end in (120, 250, 300, 480, 600):
            now = [
                Candidate(c.image_id, c.label, earlier=ever.get(c.image_id))
                for c in images(sorted(order[:end]))
            ]
            ever |= split_of(now)
        assert ever == at_once


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_small_new_class_has_images_in_each_split(count: int) -> None:
    for seed in range(30):
        splits = Counter(split_of(images(ids(count, seed), classes=1), seed=seed).values())
        wanted = {1: {"train"}, 2: {"train", "test"}}.get(count, {"train", "val", "test"})
        assert set(splits) == wanted
    no_val = {"train": 0.8, "val": 0.0, "test": 0.2}
    splits = Counter(split_of(images(ids(count), classes=1), fractions=no_val).values())
    assert set(splits) == ({"train"} if count == 1 else {"train", "test"})


def test_small_class_trains_on_its_largest_group() -> None:
    for seed in range(20):
        names = ids(40, seed)
        groups = ["big"] * 38 + ["a", "b"]
        candidates = [Candidate(n, "x", group=g) for n, g in zip(names, groups, strict=True)]
        splits = split_of(candidates, seed=seed)
        by_group = {g: splits[n] for n, g in zip(names, groups, strict=True)}
        assert set(by_group.values()) == {"train", "val", "test"}


def test_given_splits_are_obeyed_and_earlier_ones_kept() -> None:
    names = ids(60)
    given = [Candidate(n, "x", given=("train", "val", "test")[i % 3]) for i, n in enumerate(names)]
    assert split_of(given) == {c.image_id: c.given for c in given}
    earlier = [Candidate(n, "x", earlier="test") for n in names]
    assert set(split_of(earlier).values()) == {"test"}
    both = [Candidate(n, "x", given="val", earlier="test") for n in names]
    assert set(split_of(both).values()) == {"val"}


def test_newcomer_joins_its_group_whatever_the_hash_says() -> None:
    names = ids(200)
    settled = Candidate(names[0], "x", earlier="val", group="patient 1")
    others = [Candidate(n, "x", group="patient 1") for n in names[1:]]
    assert set(split_of([settled, *others]).values()) == {"val"}


def test_newcomer_joins_its_near_duplicates() -> None:
    names = ids(50)
    candidates = [Candidate(names[0], "x", earlier="test")]
    candidates += [Candidate(n, "x") for n in names[1:]]
    chain = [(i, i + 1) for i in range(49)]
    result = assign(candidates, chain, FRACTIONS, seed=0)
    assert set(result.splits.values()) == {"test"}
    assert set(result.groups.values()) == {names[0]}


def test_image_that_would_tie_two_splits_together_is_set_aside() -> None:
    a, b, c, d = ids(4)
    candidates = [
        Candidate(a, "x", earlier="train"),
        Candidate(b, "x", earlier="test"),
        Candidate(c, "x"),
        Candidate(d, "x"),
    ]
    result = assign(candidates, [(0, 2), (1, 2), (2, 3)], FRACTIONS, seed=0)
    assert result.ties == {c: "it has near-duplicates in train and test"}
    assert (result.splits[a], result.splits[b]) == ("train", "test")
    assert d in result.splits and c not in result.splits
    group = [Candidate(n, "x", e, None, "g") for n, e in ((a, "train"), (b, "val"), (c, None))]
    assert assign(group, [], FRACTIONS, 0).ties == {c: "its group has images in train and val"}


def test_users_group_counts_rather_than_looks() -> None:
    a, b = ids(2)
    candidates = [Candidate(a, "x", group="p1"), Candidate(b, "x", group="p2")]
    result = assign(candidates, [(0, 1)], FRACTIONS, seed=0)
    assert result.groups == {a: "p1", b: "p2"}


def test_order_of_the_candidates_pairs_does_not_matter() -> None:
    names = ids(80)
    pairs = [(i, i + 3) for i in range(0, 60, 5)]
    one = assign(images(names), pairs, FRACTIONS, seed=0)
    two = assign(images(names), [(b, a) for a, b in reversed(pairs)], FRACTIONS, seed=0)
    assert one == two


def test_a_class_gets_images_in_each_split_as_soon_as_it_has_them() -> None:
    """Also one whose first images came to one split only: else a split of one class stays so."""
    for history in range(30):
        names = ids(7, seed=history)
        first = [Candidate(names[0], "a", earlier="train"), Candidate(names[1], "a")]
        assert set(split_of(first).values()) <= {"train", "val", "test"}
        grown = [Candidate(i, "a", earlier="train" if i == names[0] else None) for i in names]
        assert set(split_of(grown).values()) == {"train", "val", "test"}
        assert split_of(grown)[names[0]] == "train"

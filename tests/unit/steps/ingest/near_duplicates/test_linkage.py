"""Groups without chains, and what leaks between them: against brute force on random graphs."""

import itertools
import random

from graftline.steps.ingest.near_duplicates.linkage import leaks, sides_of_newcomers, stars


def test_a_chain_is_cut_and_a_picture_keeps_its_copies() -> None:
    chain = [(number, number + 1) for number in range(99)]
    groups = members(stars(chain), 100)
    assert max(map(len, groups)) == 3
    copies = [(0, number) for number in range(1, 50)]
    assert stars(copies) == copies
    assert stars(reversed(copies)) == copies and stars([]) == []


def members(edges: list[tuple[int, int]], count: int) -> list[set[int]]:
    groups = [{number} for number in range(count)]
    for one, other in edges:
        joined = groups[one] | groups[other]
        for index in joined:
            groups[index] = joined
    return groups


def test_any_two_of_a_group_are_the_same_as_one_third() -> None:
    for seed in range(50):
        generator = random.Random(seed)
        pairs = [p for p in itertools.combinations(range(30), 2) if generator.random() < 0.08]
        known = {frozenset(pair) for pair in pairs}
        edges = stars(pairs)
        assert set(edges) <= set(pairs)
        for group in members(edges, 30):
            assert any(
                all(frozenset((centre, other)) in known for other in group - {centre})
                for centre in group
            )


def test_no_pair_that_is_evaluated_leaks() -> None:
    rank = {"train": 0, "val": 1, "test": 2}
    for seed in range(50):
        generator = random.Random(seed)
        splits = [generator.choice(["train", "val", "test", None]) for _ in range(25)]
        pairs = [p for p in itertools.combinations(range(25), 2) if generator.random() < 0.1]
        out = leaks(pairs, splits)
        for index, known in out.items():
            assert rank[splits[known]] < rank[splits[index]] and known not in out
            assert tuple(sorted((index, known))) in pairs
        for one, other in pairs:
            if splits[one] and splits[other] and splits[one] != splits[other]:
                assert {one, other} & out.keys()


def test_sides_of_newcomers_are_those_of_the_settled() -> None:
    fixed = ["train", "test", None, None, "train"]
    pairs = [(0, 2), (1, 2), (2, 3), (3, 4), (0, 1)]
    assert sides_of_newcomers(pairs, fixed) == {2: {"train", "test"}, 3: {"train"}}

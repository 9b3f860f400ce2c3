"""Splits that the source gives and that are not complete: the missing one comes out of train."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from graftline.data.snapshot import SPLITS
from graftline.errors import DataError
from graftline.steps.ingest.splits import Candidate, assign

MOSTLY_OPEN = 0.5  # of the images without a split: the hash fills all splits from them


def missing_splits(given: Iterable[str | None], fractions: Mapping[str, float]) -> tuple[str, ...]:
    """The splits with a share that no image is given, where the source gives most images one."""
    splits = Counter(given)
    if "train" not in splits or splits[None] >= MOSTLY_OPEN * splits.total():
        return ()
    return tuple(split for split in SPLITS if fractions.get(split, 0) > 0 and split not in splits)


def refuse_missing(missing: Sequence[str], mode: str) -> None:
    """Stop where splits are missing and the run file says so.

    Raises:
        DataError: Splits are missing.
    """
    if missing and mode == "refuse":
        raise DataError(
            f"The source gives the images splits, and none is in {' or '.join(missing)}",
            why="a model is calibrated on val and tested on test, and `data.missing_splits` is "
            "refuse",
            fix="Add the images of the missing split, or set `data.missing_splits: carve` to take "
            "them out of train.",
        )


def carved(missing: Sequence[str], fractions: Mapping[str, float]) -> str:
    """What is done about missing splits, in a sentence."""
    shares = " and ".join(f"{fractions[split]:.0%} of it become {split}" for split in missing)
    return f"The source has no {' and no '.join(missing)} images: train is divided, {shares}."


def complete(
    candidates: Sequence[Candidate],
    pairs: Iterable[tuple[int, int]],
    fractions: Mapping[str, float],
    seed: int,
) -> tuple[list[Candidate], tuple[str, ...]]:
    """Give images of train to the splits that are missing, whole groups at a time.

    What resembles an image of a split that is there stays in train.

    Args:
        candidates: Sorted by image id.
        pairs: Positions of near-duplicates.
        fractions: Of each split; a missing one gets its own share of train.
        seed: Of the hash.

    Returns:
        The candidates, each with its split, and which splits were missing.
    """
    missing = missing_splits((one.given for one in candidates), fractions)
    if not missing:
        return list(candidates), ()
    pool = [i for i, one in enumerate(candidates) if one.given == "train"]
    position = {index: i for i, index in enumerate(pool)}
    inside, tied = [], set()
    for first, second in pairs:
        if first in position and second in position:
            inside.append((position[first], position[second]))
        else:
            tied |= {first, second}
    kept = {one.group for one in candidates if one.given != "train" and one.group is not None}
    open_ones = []
    for index in pool:
        one = candidates[index]
        stays = index in tied or one.group in kept
        earlier = one.earlier if one.earlier in ("train", *missing) else None
        moved = one.earlier is not None and earlier is None
        given = "train" if stays or moved else None
        open_ones.append(dataclasses.replace(one, given=given, earlier=earlier))
    shares = {split: fractions[split] for split in missing}
    shares["train"] = 1 - sum(shares.values())
    chosen = assign(open_ones, inside, shares, seed).splits
    result = list(candidates)
    for index in pool:
        one = candidates[index]
        result[index] = dataclasses.replace(one, given=chosen.get(one.image_id, "train"))
    return result, missing

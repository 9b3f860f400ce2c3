"""Which stored value is black and which is white: measured over a data set, or given by the user.

Images of more than 8 bits do not say it: 12 bits are stored in 16, CT values are signed, floats end
at 1, at 255 or anywhere. It is one range for all images of a set, found once, remembered with the
source and widened only where later images leave it: a range that followed every new image would
make all features new and all models old.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from graftline.data.shards import read_ranges
from graftline.errors import ConfigurationError, DataError
from graftline.images.decode import Pixels, decode_image
from graftline.images.stored_values import OWN, ValueRange, Values, values_of
from graftline.progress import message
from graftline.steps.ingest.known import Known
from graftline.steps.ingest.near_duplicates.duplicates import LUMA, PictureHash
from graftline.steps.ingest.source_index import Memory
from graftline.storage.base import Store

EIGHT_BITS = "uint8"
MAY_BE_WIDE = ("png", "tiff", "ppm", "jpeg2000")
SAMPLE = 256  # images that an older Graftline kept without their values
OUTLIERS = 0.005  # share of the images that may leave the range: hot pixels, burnt-in text
FILLED = 0.6  # of a usual range (2**k - 1, or 1), from which on that is taken
NARROW = 0.25  # of the distance to zero: values that lie in less are not counted from zero
OTHER_KIND = 0.1  # integers and floats of one set whose largest values differ by more than this
DEPTHS = (10, 12, 14)  # bits that cameras store in 16
FEWEST, FULL, APART = 2, 0.9, 2.5  # images of a depth; how far they fill it; distance to the next
BLACK, DARK, FLAT = 12, 25, 2  # grey levels of 255
NAMED = 3


@dataclasses.dataclass(frozen=True)
class Finding:
    """The range of a data set.

    Attributes:
        value_range: Black and white; None where all images have 8 bits.
        notes: What was measured, in sentences.
        warnings: What may be wrong, in sentences.
    """

    value_range: ValueRange | None
    notes: list[str]
    warnings: list[str]


def flat_values(pixels: Pixels, picture_hash: PictureHash) -> Values | None:
    """Values of an 8-bit image that shows next to nothing; None of any other."""
    luma = picture_hash.thumbnail[: LUMA * LUMA]
    if max(luma) - min(luma) > FLAT and max(luma) > BLACK:
        return None
    found = values_of(pixels, EIGHT_BITS)
    return found if found.high - found.low <= FLAT or found.high <= BLACK else None


def measure_older(store: Store, memory: Memory, chosen: Iterable[str]) -> None:
    """Measure images that an older Graftline fetched without looking at their values.

    A sample first; all of them only where one of it has more than 8 bits.
    """
    left = [
        image_id
        for image_id in sorted(chosen)
        if image_id in memory.unmeasured and memory.images[image_id].format in MAY_BE_WIDE
    ]
    wide = _measured(store, memory, left[:SAMPLE])
    if wide and left[SAMPLE:]:
        _measured(store, memory, left[SAMPLE:])
    memory.unmeasured.clear()


def _measured(store: Store, memory: Memory, ids: list[str]) -> int:
    """Put the values of images into the memory; how many have more than 8 bits."""
    wide = 0
    byte_ranges = [(image_id, memory.images[image_id].byte_range) for image_id in ids]
    for image_id, data in zip(ids, read_ranges(store, byte_ranges), strict=True):
        found = decode_image(data, value_range=OWN).values
        memory.images[image_id] = dataclasses.replace(memory.images[image_id], values=found)
        wide += found is not None
    return wide


def find_range(
    chosen: Mapping[str, str],
    images: Mapping[str, Known],
    *,
    given: ValueRange | None,
    remembered: ValueRange | None,
) -> Finding:
    """The range of a data set.

    Args:
        chosen: Path of each image, by its id.
        images: What is known of them.
        given: ``data.value_range``.
        remembered: What earlier runs on this source measured.

    Raises:
        ConfigurationError: A range was given and there is nothing to read by it.
        DataError: The images hold values of which no single range is true.
    """
    measured = {i: images[i].values for i in sorted(chosen)}
    wide = {i: one for i, one in measured.items() if one is not None and one.kind != EIGHT_BITS}
    finding = Finding(None, [], [])
    if wide:
        finding = _of_wide(list(wide.values()), given, remembered)
        _tell_of_others(len(chosen) - len(wide), len(wide), finding)
    elif given is not None and given != (0.0, 255.0):
        raise ConfigurationError(
            f"data.value_range: {list(given)} has nothing to apply to",
            why="All images have 8 bits, which are read as they are, from 0 to 255.",
            fix="Remove data.value_range.",
        )
    _tell_of_blank(measured, chosen, finding)
    return finding


def _of_wide(
    wide: list[Values], given: ValueRange | None, remembered: ValueRange | None
) -> Finding:
    kinds = ", ".join(f"{kind} ({n:,})" for kind, n in Counter(v.kind for v in wide).most_common())
    lowest, highest = min(one.lowest for one in wide), max(one.highest for one in wide)
    stored = (
        f"{len(wide):,} images have more than 8 bits: {kinds}, "
        f"values from {lowest:g} to {highest:g}"
    )
    if given is not None:
        return Finding(given, [f"{stored}; {_read_from(given)}, as data.value_range says"], [])
    _check_one_meaning(wide)
    _check_one_depth(wide)
    found = usual_range(wide)
    if remembered is not None and remembered[0] <= found[0] and found[1] <= remembered[1]:
        return Finding(remembered, [f"{stored}; {_read_from(remembered)}, as before"], [])
    warnings = []
    if remembered is not None:
        warnings.append(
            f"New images leave the range of {_range_text(remembered)} in which this source was "
            f"read until now: from now on it is {_range_text(found)}, and all features are "
            "computed again. Set data.value_range to keep one range"
        )
    hint = "; set data.value_range if you know a better one"
    return Finding(found, [f"{stored}; {_read_from(found)}{hint}"], warnings)


def usual_range(wide: Sequence[Values]) -> ValueRange:
    """The range of a set, rounded to what cameras and formats usually have."""
    low, high = _bounds(wide)
    if low >= 0 and high - low < NARROW * high:  # a thermal camera's 28,000 to 31,000
        step = 10.0 ** (math.floor(math.log10(high - low)) - 1) if high > low else 1.0
        first = math.floor(low / step) * step
        return _exact(first), _exact(max(math.ceil(high / step) * step, first + step))
    floats = all(one.kind.startswith("float") for one in wide)
    one = [1.0] if floats else []
    tops = one + [float(2**bits - 1) for bits in range(8, 33)]
    bottom = -_rounded_up(-low, one + [2.0**bits for bits in range(7, 33)]) if low < 0 else 0.0
    if floats and bottom >= -1:
        return bottom, _rounded_up(high, tops) if high > 0 else bottom + 1.0
    return bottom, bottom + _rounded_up(high - bottom, tops)  # CT: -1024 and 12 bits up


def _bounds(wide: Sequence[Values]) -> ValueRange:
    """Within which the images lie, but for a few outliers."""
    lows, highs = sorted(one.low for one in wide), sorted(one.high for one in wide)
    spare = int(OUTLIERS * len(wide))
    return lows[spare], highs[-1 - spare]


def _rounded_up(value: float, usual: Sequence[float]) -> float:
    """``value`` up to the next usual one; to two digits where that would be far away."""
    top = next((one for one in usual if value <= one), value)
    if value >= FILLED * top:
        return top
    if value <= 0:
        return 1.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return _exact(math.ceil(value / step - 1e-9) * step)


def _exact(value: float) -> float:
    """Without what a multiplication by 0.01 leaves in the last bits."""
    return float(f"{value:.12g}")


def _check_one_meaning(wide: Sequence[Values]) -> None:
    """Refuse floats and integers that cannot be of one range."""
    floats = [one for one in wide if one.kind.startswith("float")]
    integers = [one for one in wide if not one.kind.startswith("float")]
    if not floats or not integers:
        return
    tops = _bounds(floats)[1], _bounds(integers)[1]
    if min(tops) >= OTHER_KIND * max(tops):
        return
    raise DataError(
        "There is no single range that fits the values of all images",
        why=f"{len(floats):,} hold floats up to {tops[0]:g}, {len(integers):,} integers up to "
        f"{tops[1]:g}",
        fix="Save all of them in one way, or take one kind out of data.source. If one range is "
        "right for both, set it as data.value_range.",
    )


def _check_one_depth(wide: Sequence[Values]) -> None:
    """Refuse integers of two depths: 12-bit images among 16-bit ones, which would look black.

    They show as images that fill a smaller depth to its end, well apart from all others. A scene
    that is only dark seldom ends there.
    """
    tops = sorted(one.high for one in wide if not one.kind.startswith("float"))
    for bits in DEPTHS:
        end = 2.0**bits - 1
        lower = [top for top in tops if top <= end]
        upper = tops[len(lower) :]
        if len(lower) < FEWEST or len(upper) < FEWEST or lower[-1] < FULL * end:
            continue
        if upper[0] < APART * lower[-1]:
            continue
        white = _rounded_up(upper[-1], [float(2**16 - 1)])
        raise DataError(
            f"The images seem to be of two depths: {len(lower):,} end at {lower[-1]:g}, as "
            f"{bits}-bit values do, and {len(upper):,} lie between {upper[0]:g} and {upper[-1]:g}",
            why="by one range for all of them, the first would be nearly black",
            fix="Save all of them in one depth. If equal numbers are equally bright in all of "
            f"them, set `data.value_range: [0, {white:g}]`.",
        )


def _tell_of_others(eight: int, wide: int, finding: Finding) -> None:
    if eight:
        finding.warnings.append(
            f"8-bit images: {eight:,}, read from 0 to 255; images of more bits: {wide:,}. Check "
            "that both show things equally bright"
        )


def _tell_of_blank(
    measured: Mapping[str, Values | None], chosen: Mapping[str, str], finding: Finding
) -> None:
    """Name images that show (next to) nothing, as they are read."""
    flat: list[str] = []
    dark: list[str] = []
    for image_id, one in measured.items():
        if one is None:
            continue
        eight = one.kind == EIGHT_BITS or finding.value_range is None
        bounds = (0.0, 255.0) if eight else finding.value_range or (0.0, 255.0)
        low, high = (_level(value, bounds) for value in (one.low, one.high))
        if high - low <= FLAT:
            flat.append(chosen[image_id])
        elif high <= (BLACK if eight else DARK):
            dark.append(chosen[image_id])
    for paths, one_does, all_do in (
        (flat, "shows one value everywhere", "show one value everywhere"),
        (dark, "is nearly black", "are nearly black"),
    ):
        if paths:
            what = f"1 image {one_does}" if len(paths) == 1 else f"{len(paths):,} images {all_do}"
            named = ", ".join(sorted(paths)[:NAMED])
            more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
            cause = "" if finding.value_range is None else " in the range that the set is read by"
            finding.warnings.append(f"{what}{cause}: {named}{more}")


def _level(value: float, bounds: ValueRange) -> float:
    return min(255.0, max(0.0, 255 * (value - bounds[0]) / (bounds[1] - bounds[0])))


def _range_text(bounds: ValueRange) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _read_from(bounds: ValueRange) -> str:
    return f"{bounds[0]:g} is read as black and {bounds[1]:g} as white"


def say(finding: Finding) -> None:
    """Print what was measured."""
    for note in finding.notes:
        message("%s.", note)

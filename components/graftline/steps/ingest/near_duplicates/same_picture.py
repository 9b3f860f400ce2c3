"""Whether two images show the same picture: compared piece by piece, after alignment.

The overall look of an image says where it was taken, not what is in it: all frames of a fixed
camera, all photographs of one surface and all screenshots of one program look alike. A copy is
another matter: wherever one looks, it differs from the original by less than there is to see. So
two images are laid over one another (a copy may be cropped), a difference in brightness, contrast
and sharpness is taken off, and then no part of the picture may differ: a small object that is in
one of them only is enough to tell them apart.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graftline.images.decode import Pixels

VERSION = 2  # of the rule; answers that another one gave are not used
FINE, COARSE = 96, 32  # sides of the rasters that are compared
DETAIL_BYTES = 3 * FINE * FINE + 1
STEPS_COARSE, STEPS_FINE = 10, 4  # of the alignment
SCALE, SHIFT = 0.22, 0.22  # the most that a copy is cropped, of its half side
GAIN = (0.55, 1.8)  # of the contrast
OVERLAP = 0.55  # of the area that must be there in both
MAX_RESIDUAL = 0.15  # of the contrast; a correlation of about 0.99
COARSE_RESIDUAL = 0.45  # a looser bound before the last alignment
PIECE = 8  # side of a piece of the fine raster
MAX_PIECE = 0.55  # of the contrast in and around the piece
NOISE = (0.3, 3.5, 0.085)  # grey levels: at least, at most, and as a share of the contrast
GRADUAL = 8.0  # pixels; a difference that is smoother than this is light, not a thing
SLACK = 0.3  # pixels that an edge may be off after alignment
SHARPNESS = (0.7, 1.2, 1.8, 2.5, 3.5, 5.0)  # blurs that are tried, in pixels of the fine raster
SMOOTH = 0.85  # pixels that everything is blurred by, against what compression leaves
COLOUR = 12.0  # grey levels that a colour may differ by in one piece
ENOUGH = 0.3  # of the area must be compared
WHITE, BLACK = 245, 6  # grey levels beyond which a channel may be clipped in one of two copies
BATCH = 32  # pairs that are compared at a time

Floats = npt.NDArray[np.floating[Any]]
Details = npt.NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
CHROMA = np.array([[-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], dtype=np.float32)


def detail_of(pixels: Pixels) -> Details:
    """What of an image is compared: 96 x 96 RGB, then its shorter side (255 for more)."""
    image = Image.fromarray(pixels)
    shorter = min(image.size)
    if shorter > 4 * FINE:  # fast averaging first
        image = image.reduce(shorter // (4 * FINE) + 1)
    raster = np.asarray(image.resize((FINE, FINE), Image.Resampling.BILINEAR))
    return np.append(raster.transpose(2, 0, 1), np.uint8(min(shorter, 255)))


def same_picture(first: Details, second: Details) -> npt.NDArray[np.bool_]:
    """Whether images show the same picture, row by row.

    Args:
        first: (P, :data:`DETAIL_BYTES`)
        second: (P, :data:`DETAIL_BYTES`)
    """
    same = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), BATCH):
        part = slice(start, start + BATCH)
        same[part] = _same(first[part], second[part])
    return same


def _same(first: Details, second: Details) -> npt.NDArray[np.bool_]:
    a, b = _rgb(first), _rgb(second)
    luma_a, luma_b = _luma(a), _luma(b)
    small_a, small_b = _shrunk(luma_a), _shrunk(luma_b)
    pose = _aligned(small_a, small_b, _Pose.none(len(first)), STEPS_COARSE)
    near = np.flatnonzero(_plausible(pose) & _roughly(small_a, small_b, pose))
    same = np.zeros(len(first), dtype=bool)
    if not len(near):
        return same
    sides = np.minimum(first[near, -1], second[near, -1])
    luma_a, luma_b = _blurred(luma_a[near], 1.0), _blurred(luma_b[near], 1.0)
    pose = _aligned(luma_a, luma_b, pose.rows(near), STEPS_FINE)
    same[near] = _nothing_differs(a[near], b[near], pose, sides)
    same[near] &= _plausible(pose)
    return same


def _rgb(details: Details) -> Floats:
    return details[:, :-1].reshape(-1, 3, FINE, FINE).astype(np.float32)


def _luma(rgb: Floats) -> Floats:
    luma: Floats = np.tensordot(rgb, LUMA, axes=(1, 0))
    return luma


def _shrunk(luma: Floats) -> Floats:
    ratio = FINE // COARSE
    small = luma.reshape(-1, COARSE, ratio, COARSE, ratio).mean(axis=(2, 4))
    return _blurred(small, 1.0)


# -- alignment --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Pose:
    """Where the first image's points are in the second one: scale and shift of each axis.

    Attributes:
        values: (P, 4): scale - 1 and shift along x, then along y, in half sides.
        light: (P, 2): contrast and brightness that turn the second one into the first.
    """

    values: Floats
    light: Floats

    @classmethod
    def none(cls, count: int) -> "_Pose":
        light = np.tile(np.array([1.0, 0.0], dtype=np.float32), (count, 1))
        return cls(np.zeros((count, 4), dtype=np.float32), light)

    def rows(self, rows: npt.NDArray[np.int64]) -> "_Pose":
        return _Pose(self.values[rows], self.light[rows])

    def warped(self, images: Floats) -> tuple[Floats, Floats]:
        """The second images laid over the first, and (P, S, S) where they have a point."""
        side = images.shape[1]
        matrices, inside = [], []
        for axis in (0, 1):
            scale, shift = self.values[:, 2 * axis, None], self.values[:, 2 * axis + 1, None]
            wanted = _grid(side)[None, :] * (1 + scale) + shift
            position = (wanted + 1) * side / 2 - 0.5
            inside.append((position > -0.5) & (position < side - 0.5))
            position = position.clip(0, side - 1)
            distance = np.abs(position[:, :, None] - np.arange(side, dtype=np.float32))
            matrices.append(np.maximum(0, 1 - distance))
        x, y = matrices
        mask = inside[1][:, :, None] & inside[0][:, None, :]
        return y @ images @ x.transpose(0, 2, 1), mask.astype(np.float32)


def _grid(side: int) -> Floats:
    return ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)


def _aligned(first: Floats, second: Floats, pose: _Pose, steps: int) -> _Pose:
    """The pose with the least squared difference, by Gauss-Newton steps (Lucas-Kanade, 1981)."""
    side = first.shape[1]
    x = _grid(side)[None, None, :]
    y = _grid(side)[None, :, None]
    values = pose.values
    light = pose.light
    for _ in range(steps):
        warped, mask = _Pose(values, light).warped(second)
        mask = mask * (warped < WHITE) * (first < WHITE)
        gradient_y, gradient_x = np.gradient(warped, 2 / side, axis=(1, 2))
        gain = light[:, 0, None, None]
        columns = [gain * gradient_x * x, gain * gradient_x, gain * gradient_y * y]
        columns += [gain * gradient_y, warped, np.ones_like(warped)]
        jacobian = np.stack([(column * mask).reshape(len(first), -1) for column in columns], axis=1)
        wrong = (first - gain * warped - light[:, 1, None, None]) * mask
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        # A little is added to the diagonal: a flat image has no gradient to go by.
        strength = np.array([1, 1, 1, 1, 1e-3, 1e-3], dtype=np.float32) * side * side * 2
        normal += np.eye(6, dtype=np.float32) * strength
        step = np.linalg.solve(normal, (jacobian @ wrong.reshape(len(first), -1, 1)))[:, :, 0]
        values = np.clip(values + np.clip(step[:, :4], -0.1, 0.1), -0.4, 0.4)
        light = light + step[:, 4:]
        light = np.stack([light[:, 0].clip(0.3, 3), light[:, 1]], axis=1)
    return _Pose(values.astype(np.float32), light.astype(np.float32))


def _plausible(pose: _Pose) -> npt.NDArray[np.bool_]:
    scale, shift, gain = pose.values[:, ::2], pose.values[:, 1::2], pose.light[:, 0]
    # In half sides, how much of each axis of the first image the second one has.
    low = np.maximum(-1, (-1 - shift) / (1 + scale))
    high = np.minimum(1, (1 - shift) / (1 + scale))
    shared = np.prod((high - low) / 2, axis=1)
    fits: npt.NDArray[np.bool_] = np.asarray((np.abs(scale) <= SCALE).all(axis=1))
    fits &= (np.abs(shift) <= SHIFT).all(axis=1) & (shared >= OVERLAP)
    return fits & (gain >= GAIN[0]) & (gain <= GAIN[1])


# -- comparison --------------------------------------------------------------------------------


def _lit(images: Floats, pose: _Pose) -> Floats:
    lit: Floats = images * pose.light[:, 0, None, None] + pose.light[:, 1, None, None]
    return lit


def _roughly(first: Floats, second: Floats, pose: _Pose) -> npt.NDArray[np.bool_]:
    """A cheap bound on the small rasters: most frames of one camera differ there already."""
    warped, mask = pose.warped(second)
    mask = mask * (warped < WHITE - 20) * (first < WHITE - 20)
    lit = _lit(warped, pose)
    off = np.abs(first - lit)
    off = np.maximum(off - 2 * SLACK * _steepness(first), 0)
    noise = 2 * NOISE[1] + 0.3 * np.sqrt(np.maximum(_variance(first, mask), _variance(lit, mask)))
    rough: npt.NDArray[np.bool_] = _relative(first, lit, mask) < COARSE_RESIDUAL
    rough |= mask.mean(axis=(1, 2)) < ENOUGH  # mostly white: the colours decide
    return rough & (_pieces(off**2, mask) <= noise**2).all(axis=(1, 2))


def _relative(first: Floats, second: Floats, mask: Floats) -> Floats:
    wrong = np.sqrt(_mean((first - second) ** 2, mask))
    contrast = np.minimum(_spread(first, mask), _spread(second, mask))
    relative: Floats = wrong / np.maximum(contrast, NOISE[0] / MAX_RESIDUAL)
    return np.where(mask.mean(axis=(1, 2)) < ENOUGH, np.float32(9), relative)


def _mean(values: Floats, mask: Floats) -> Floats:
    mean: Floats = (values * mask).sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1)
    return mean


def _spread(values: Floats, mask: Floats) -> Floats:
    away = values - _mean(values, mask)[:, None, None]
    spread: Floats = np.sqrt(_mean(away**2, mask))
    return spread


def _nothing_differs(
    first: Floats, second: Floats, pose: _Pose, sides: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Whether the whole and each piece agree, at the sharpness of the less sharp of the two.

    Args:
        first: (P, 3, S, S)
        second: (P, 3, S, S)
        pose: Of the second over the first.
        sides: (P,) pixels of the shorter side of the smaller image.
    """
    warped, mask = _warped_colours(second, pose)
    a, b, mask = _equally_lit(first, warped, mask)
    b = np.where(mask[:, None] > 0, b, a)  # else what is compared is blurred with what is not
    enlarged = np.clip(FINE / sides.astype(np.float32), 1, 4)  # has so much less detail
    luma_a, luma_b = (_blurred_each(_luma(one), SMOOTH * enlarged) for one in (a, b))
    luma_a, luma_b = _equally_sharp(luma_a, luma_b, mask)
    contrast = np.minimum(_spread(luma_a, mask), _spread(luma_b, mask))
    more = np.minimum(enlarged, 2)
    noise = np.clip(NOISE[2] * contrast * more, NOISE[0], NOISE[1] * more)
    same: npt.NDArray[np.bool_] = _relative(luma_a, luma_b, mask) <= MAX_RESIDUAL
    same &= _pieces_agree(luma_a, luma_b, mask, noise)
    for weights in CHROMA:
        bands = [np.tensordot(one, weights, axes=(1, 0)) for one in (a, b)]
        bands = [_blurred_each(band, 2 * enlarged) for band in bands]
        noise = np.full(len(a), COLOUR, dtype=np.float32)
        same &= _pieces_agree(bands[0], bands[1], mask, noise)
    return same


def _pieces_agree(
    first: Floats, second: Floats, mask: Floats, noise: Floats
) -> npt.NDArray[np.bool_]:
    local = np.maximum(_variance(first, mask), _variance(second, mask))
    differ = first - second
    differ -= _blurred(differ, GRADUAL)
    off = np.maximum(np.abs(differ) - SLACK * _steepness(first), 0)
    allowed = MAX_PIECE**2 * local + noise[:, None, None] ** 2
    agree: npt.NDArray[np.bool_] = np.asarray((_pieces(off**2, mask) <= allowed).all(axis=(1, 2)))
    return agree


def _warped_colours(images: Floats, pose: _Pose) -> tuple[Floats, Floats]:
    bands = [pose.warped(images[:, band]) for band in range(3)]
    return np.stack([band for band, _ in bands], axis=1), bands[0][1]


def _equally_lit(first: Floats, second: Floats, mask: Floats) -> tuple[Floats, Floats, Floats]:
    """The darker one made as bright as the other; where that clips, nothing is compared."""
    count = len(first)
    lost = [((i >= WHITE) | (i <= BLACK)).mean(axis=(1, 2, 3)) for i in (first, second)]
    means = [_mean(_luma(image), mask) for image in (first, second)]
    flip = np.where(np.abs(lost[0] - lost[1]) > 0.01, lost[0] > lost[1], means[0] > means[1])
    dark = np.where(flip[:, None, None, None], second, first)
    bright = np.where(flip[:, None, None, None], first, second)
    weights = np.broadcast_to(mask[:, None], dark.shape)
    clipped = (bright >= WHITE - 10) | (bright <= BLACK + 10)
    few = (weights * ~clipped).sum(axis=(1, 2, 3)) < 0.1 * weights.sum(axis=(1, 2, 3))
    clipped &= ~few[:, None, None, None]  # it is white, and was not made white
    for _ in range(3):
        use = (weights * ~clipped).reshape(count, -1)
        x, y = dark.reshape(count, -1), bright.reshape(count, -1)
        total = np.maximum(use.sum(axis=1), 1)
        mean_x, mean_y = (use * x).sum(axis=1) / total, (use * y).sum(axis=1) / total
        spread = (use * (x - mean_x[:, None]) ** 2).sum(axis=1) / total
        both = (use * (x - mean_x[:, None]) * (y - mean_y[:, None])).sum(axis=1) / total
        gain = np.clip((both + 1) / (spread + 1), *GAIN)
        offset = mean_y - gain * mean_x
        clipped = _clipped(gain[:, None, None, None] * dark + offset[:, None, None, None], bright)
    predicted = gain[:, None, None, None] * dark + offset[:, None, None, None]
    return np.clip(predicted, 0, 255), bright, mask * ~_lost(predicted, dark, bright, mask)


def _lost(predicted: Floats, dark: Floats, bright: Floats, mask: Floats) -> npt.NDArray[np.bool_]:
    """(P, S, S): where nothing is to be compared, since the brighter one was clipped.

    Where that leaves too little, what is white or black in both of them counts as equal: a thing
    on a white ground, cells on a dark one, a picture of which one colour is empty.
    """
    either = _clipped(predicted, bright)
    clipped = np.asarray(either.any(axis=1))
    in_both = ((dark >= WHITE - 10) & (bright >= WHITE - 10)) | (
        (dark <= BLACK + 10) & (bright <= BLACK + 10)
    )
    left = (mask * ~clipped).mean(axis=(1, 2))
    return np.where((left < ENOUGH)[:, None, None], (either & ~in_both).any(axis=1), clipped)


def _clipped(predicted: Floats, bright: Floats) -> npt.NDArray[np.bool_]:
    white = (predicted >= WHITE) & (bright >= WHITE - 10)
    clipped: npt.NDArray[np.bool_] = white | ((predicted <= BLACK) & (bright <= BLACK + 10))
    return clipped


def _equally_sharp(first: Floats, second: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """One of them blurred, so that they differ least."""
    pairs = [(first, second)]
    pairs += [(_blurred(first, sigma), second) for sigma in SHARPNESS]
    pairs += [(first, _blurred(second, sigma)) for sigma in SHARPNESS]
    best = np.stack([_relative(a, b, mask) for a, b in pairs]).argmin(axis=0)
    rows = np.arange(len(first))
    a, b = (np.stack([pair[side] for pair in pairs])[best, rows] for side in (0, 1))
    return a, b


def _steepness(images: Floats) -> Floats:
    """Grey levels a pixel, the largest nearby."""
    down, across = np.gradient(images, axis=(1, 2))
    steep: Floats = np.hypot(down, across)
    return steep


def _pieces(values: Floats, mask: Floats) -> Floats:
    """(P, N, N): the mean of each piece; pieces overlap by half; zero where the mask is."""
    half = PIECE // 2
    count = values.shape[1] // half

    def sums(images: Floats) -> Floats:
        halves = images.reshape(-1, count, half, count, half).sum(axis=(2, 4))
        wide = halves[:, 1:] + halves[:, :-1]
        total: Floats = wide[:, :, 1:] + wide[:, :, :-1]
        return total

    weight = sums(mask)
    mean: Floats = sums(values * mask) / np.maximum(weight, 1)
    return np.where(weight > PIECE * PIECE / 4, mean, np.float32(0))


def _variance(values: Floats, mask: Floats) -> Floats:
    away = values - _mean(values, mask)[:, None, None]
    variance: Floats = np.maximum(_pieces(away**2, mask) - _pieces(away, mask) ** 2, 0)
    return variance


def _blurred(images: Floats, sigma: float) -> Floats:
    matrix = _blur_matrix(images.shape[1], sigma)
    blurred: Floats = matrix @ images @ matrix.T
    return blurred


def _blurred_each(images: Floats, sigmas: Floats) -> Floats:
    matrices = np.stack([_blur_matrix(images.shape[1], sigma) for sigma in sigmas])
    blurred: Floats = matrices @ images @ matrices.transpose(0, 2, 1)
    return blurred


def _blur_matrix(side: int, sigma: float) -> Floats:
    distance = np.arange(side)[:, None] - np.arange(side)[None, :]
    matrix = np.exp(-0.5 * (distance / sigma) ** 2)
    weights: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights

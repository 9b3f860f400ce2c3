"""How features are brought to a common size and turned before a linear classifier sees them."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular

FLOOR = 0.01  # of the mean deviation: a nearly constant feature must not become loud
SHRINKAGE = 0.1  # of the scatter within classes towards a sphere: few images, many directions
ROUNDING, TINY = 1e-10, 1e-30  # of the images' scatter: what single precision makes of none
WIDEST = 4096  # directions; beyond, a matrix over all pairs of them costs more than it gives

Matrix = NDArray[np.float32]


class Scaling(StrEnum):
    """How features are brought to a common size before the penalty sees them."""

    EACH = "each"  # every feature by its own deviation
    SHARED = "shared"  # all by one: what the network made loud stays loud
    WITHIN = "within"  # turned and stretched until images of one class scatter alike everywhere


@dataclass(frozen=True)
class Standardisation:
    """What is done to features before a linear classifier sees them; float64.

    Attributes:
        mean: Of each feature, shape (feature_dim,).
        scale: What each is divided by, shape (feature_dim,).
        rotation: What follows, shape (feature_dim, kept), kept at most feature_dim; None where
            nothing does.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    rotation: NDArray[np.float64] | None = None

    def apply(self, features: Matrix) -> Matrix:
        """Features with mean 0 and deviation about 1, float32."""
        centred = features - self.mean.astype(np.float32)
        centred /= self.scale.astype(np.float32)
        return centred if self.rotation is None else centred @ self.rotation.astype(np.float32)

    @property
    def kept(self) -> int:
        """How many directions are left."""
        return len(self.mean) if self.rotation is None else self.rotation.shape[1]

    def unfold(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """A layer's weights (classes, feature_dim) for raw features instead of standardised."""
        turned = weight if self.rotation is None else weight @ self.rotation.T
        return turned / self.scale


def can_whiten(images: int, width: int) -> bool:
    """Whether ``Scaling.WITHIN`` is worth its cost: not with many features of many images."""
    return width <= WIDEST or images <= width // 2


def standardisation(
    features: Matrix,
    how: Scaling = Scaling.EACH,
    labels: NDArray[np.int64] | None = None,
    block: int = 16384,
    *,
    in_span: bool = False,
) -> Standardisation:
    """Mean and deviation of each feature, in float64 and in blocks, so memory stays bounded.

    A feature's own deviation has a floor of 1% of the mean deviation. Without it a feature that
    is constant but for rounding would be blown up to the size of the others.

    Args:
        features: Shape (N, feature_dim).
        how: Which of the ways.
        labels: Class indices (N,), for ``Scaling.WITHIN``.
        block: Rows at once.
        in_span: With few images, keep only the directions in which they differ: faster to fit.
    """
    count, width = features.shape
    mean = np.zeros(width)
    for start in range(0, count, block):
        mean += features[start : start + block].sum(axis=0, dtype=np.float64)
    mean /= count
    variance = np.zeros(width)
    for start in range(0, count, block):
        variance += np.square(features[start : start + block] - mean).sum(axis=0)
    variance /= count
    if how is Scaling.EACH:
        deviation = np.sqrt(variance)
        floor = FLOOR * float(deviation.mean())
        scale = np.maximum(deviation, floor) if floor > 0 else np.ones(width)
    else:
        shared = float(np.sqrt(variance.mean()))
        scale = np.full(width, shared if shared > 0 else 1.0)
    scaled = Standardisation(mean, scale)
    # Some more images may be fitted than were searched: whitened are those in their span, too.
    few = width if how is Scaling.WITHIN and width > WIDEST else width // 2
    if in_span and count <= few:
        scaled = _in_span(features, scaled)
    if how is not Scaling.WITHIN or labels is None:
        return scaled
    return _whitened(features, labels, scaled, block)


def _in_span(features: Matrix, scaled: Standardisation) -> Standardisation:
    """Add the turn into the principal directions in which the images differ at all.

    The best weights lie in the span of the images, and a turn changes neither scores nor penalty:
    the fit is the same, in one dimension less than there are images.
    """
    inside = scaled.apply(features).astype(np.float64)
    squares, turn = eigh(
        inside @ inside.T, overwrite_a=True, check_finite=False, driver="evd"
    )  # of products of images, which are far fewer than those of features
    told = squares > max(ROUNDING * squares[-1], TINY)
    told[-1] = True  # where all images are the same, too
    span = inside.T @ (turn[:, told] / np.sqrt(np.maximum(squares[told], TINY)))
    return Standardisation(scaled.mean, scaled.scale, span)


def _whitened(
    features: Matrix, labels: NDArray[np.int64], scaled: Standardisation, block: int
) -> Standardisation:
    """Add the turn after which the scatter within classes is a sphere.

    It is the metric of linear discriminant analysis, with its covariance shrunken towards the
    sphere (Friedman 1989, "Regularized Discriminant Analysis"). Directions in which images of
    one class differ anyway no longer drown those that tell classes apart.
    """
    width = features.shape[1]  # directions without any scatter count: they are shrunken towards too
    kept = scaled.kept
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(classes), kept))
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        members = (index[part] == np.arange(len(classes))[:, None]).astype(np.float32)
        means += members @ scaled.apply(features[part])
    means /= counts[:, None]
    scatter = np.zeros((kept, kept))
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        residual = scaled.apply(features[part]) - means[index[part]].astype(np.float32)
        scatter += residual.T @ residual
    scatter /= len(labels)
    sphere = float(np.trace(scatter)) / width
    if sphere <= 0:  # one image a class: nothing is known of the scatter
        return scaled
    shrunken = (1 - SHRINKAGE) * scatter
    shrunken[np.diag_indices(kept)] += SHRINKAGE * sphere
    root = cholesky(shrunken, lower=True, overwrite_a=True, check_finite=False)
    rotation = solve_triangular(root, np.eye(kept), lower=True, check_finite=False).T
    between = (np.sqrt(counts / len(labels))[:, None] * means) @ rotation
    spread = np.einsum("ij,ij->", scatter @ rotation, rotation) + np.square(between).sum()
    rotation /= np.sqrt(spread / width)
    if scaled.rotation is not None:
        rotation = scaled.rotation @ rotation
    return Standardisation(scaled.mean, scaled.scale, rotation)


def principal(standardised: Matrix) -> NDArray[np.float64]:
    """The turn into the principal directions of features, shape (feature_dim, feature_dim).

    A turn changes neither scores nor penalty: fits are the same, and the optimiser can be told how
    far features spread in each direction.
    """
    covariance = standardised.T @ standardised / len(standardised)
    turn: NDArray[np.float64] = eigh(
        covariance, overwrite_a=True, check_finite=False, driver="evd"
    )[1]
    return turn.astype(np.float64)


def turned(by: Standardisation, turn: NDArray[np.float64]) -> Standardisation:
    """What standardises and then turns."""
    return replace(by, rotation=turn if by.rotation is None else by.rotation @ turn)

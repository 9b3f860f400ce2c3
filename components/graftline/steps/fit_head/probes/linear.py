"""Linear classifiers on features: logistic regression, linear SVM and nearest class mean.

The first two minimise ``|W|^2 / 2 + C * sum(loss)`` with an unpenalised intercept, as
scikit-learn's LogisticRegression and LinearSVC state it. scipy's L-BFGS does the work; one step
costs two matrix products for all classes together, so that 100 classes cost little more than two,
and a fit starts from the solution of the next stronger regularisation.

The nearest class mean has nothing to choose: it is linear discriminant analysis with one variance
for all directions. On features whose scatter within classes was made a sphere (``within``), it is
shrunken linear discriminant analysis. With very few images nothing beats it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from graftline.steps.fit_head.probes.scaling import Matrix

Family = Literal["logistic", "svm", "mean"]
FAMILIES: tuple[Family, ...] = ("logistic", "svm", "mean")
ABSENT_LOGIT = -10.0  # below the other intercepts, for a class without a training image
# Of the loss by a score, about what it is near the solution: sets the length of steps only.
CURVATURE: dict[Family, float] = {"logistic": 0.03, "svm": 0.3, "mean": 1.0}
LEAST_SPREAD = 1e-1  # of the mean variance, as steps see it


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear classifier on standardised features.

    Attributes:
        weight: Shape (classes, feature_dim).
        bias: Shape (classes,).
        family: Which loss it was fitted with.
        C: Inverse strength of the regularisation.
        iterations: Steps that the optimiser took.
        converged: Whether it met its tolerance within them.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    family: Family
    C: float
    iterations: int
    converged: bool

    def decide(self, standardised: Matrix) -> Matrix:
        """Scores (N, classes) of standardised features (N, feature_dim)."""
        scores: Matrix = standardised @ self.weight.T.astype(np.float32)
        scores += self.bias.astype(np.float32)
        return scores


def on_device(standardised: Matrix | NDArray[np.float64]) -> Tensor:
    """The features where they are fitted, in their precision: on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.from_numpy(np.ascontiguousarray(standardised)).to(device)


def fit_linear(
    standardised: Matrix | NDArray[np.float64] | Tensor,
    labels: NDArray[np.int64],
    classes: int,
    *,
    family: Family,
    C: float,
    start: LinearFit | None = None,
    class_weight: NDArray[np.float64] | None = None,
    spread: NDArray[np.float64] | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
) -> LinearFit:
    """Fit one linear classifier.

    Args:
        standardised: Features, shape (N, feature_dim); :func:`on_device` for several fits.
        labels: Class indices, shape (N,).
        classes: How many classes there are; one without a label gets a low constant score.
        family: ``logistic`` (multinomial), ``svm`` (one against the rest, squared hinge), or
            ``mean`` (nearest class mean), for which C, start and tolerance mean nothing.
        C: Inverse strength of the regularisation.
        start: Where to begin, such as the solution for a smaller C.
        class_weight: Weight of each class's images in the loss, shape (classes,).
        spread: Variance of each feature, shape (feature_dim,), where features are uncorrelated
            (:func:`principal`): steps are then as long as each direction allows, and far fewer.
        max_iterations: Most steps of the optimiser.
        tolerance: It stops when no component of the mean loss's gradient is larger; with
            ``spread``, of that by the root of the curvature.
    """
    present = np.unique(labels)
    features = on_device(standardised) if isinstance(standardised, np.ndarray) else standardised
    width = features.shape[1]
    if family == "mean":
        solution = _class_means(features.cpu().numpy(), labels, present, class_weight)
        return _with_absent(solution, present, classes, family, C, 1, True)
    objective = _Objective(features, labels, present, family, C, class_weight)
    unit = np.ones(width + 1)
    if spread is not None:
        # Where features hardly spread, a long step would be one along the rounding of single sums.
        spread = np.maximum(spread, LEAST_SPREAD * spread.mean())
        unit[:width] = np.sqrt(objective.penalty + CURVATURE[family] * spread)
        unit[width] = np.sqrt(CURVATURE[family])
    x0 = np.zeros((len(present), width + 1))
    if start is not None:
        x0[:, :width], x0[:, width] = start.weight[present], start.bias[present]
    else:
        x0[:, width] = _first_bias(labels, present, family)
    # What single precision resolves; double precision also follows the slow end of a weak penalty.
    ftol = 1e-10 if features.dtype == torch.float32 else 1e-15
    # The objective is divided by C * N, so that the tolerance means the same for every C and N.
    options = {"maxiter": max_iterations, "gtol": tolerance, "ftol": ftol, "maxcor": 10}

    def scaled(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = objective((flat.reshape(x0.shape) / unit).ravel())
        return value, (gradient.reshape(x0.shape) / unit).ravel()

    found = minimize(scaled, (x0 * unit).ravel(), jac=True, method="L-BFGS-B", options=options)
    solution = found.x.reshape(x0.shape) / unit
    return _with_absent(solution, present, classes, family, C, int(found.nit), bool(found.success))


def _with_absent(
    solution: NDArray[np.float64],
    present: NDArray[np.int64],
    classes: int,
    family: Family,
    C: float,
    iterations: int,
    converged: bool,
) -> LinearFit:
    """A fit of the classes present, the others with a low constant score.

    Args:
        solution: Weights and bias of each class present, shape (present, width + 1).
        present: Their indices.
        classes: All of them.
        family: As fitted.
        C: As fitted.
        iterations: As fitted.
        converged: As fitted.
    """
    width = solution.shape[1] - 1
    weight, bias = np.zeros((classes, width)), np.zeros(classes)
    weight[present], bias[present] = solution[:, :width], solution[:, width]
    absent = np.setdiff1d(np.arange(classes), present)
    bias[absent] = (bias[present].min() if len(present) else 0.0) + ABSENT_LOGIT
    return LinearFit(weight, bias, family, C, iterations, converged)


def _class_means(
    features: Matrix,
    labels: NDArray[np.int64],
    present: NDArray[np.int64],
    class_weight: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Log-posteriors of Gaussian classes with one variance, up to a constant of the image.

    ``(m . x - |m|^2 / 2) / variance + log(share)``, as scikit-learn's
    LinearDiscriminantAnalysis(shrinkage=1) on these features. Classes weighted by their inverse
    frequency have equal shares.

    Returns:
        Weights and bias of each class present, shape (present, width + 1).
    """
    width = features.shape[1]
    index = np.searchsorted(present, labels)
    counts = np.bincount(index).astype(np.float64)
    means = np.stack(
        [features[index == at].mean(axis=0, dtype=np.float64) for at in range(len(present))]
    )
    total = np.square(features).sum(dtype=np.float64) - (counts[:, None] * np.square(means)).sum()
    variance = max(float(total), 1e-12) / (len(labels) * width)
    weights = counts if class_weight is None else counts * class_weight[present]
    solution = np.empty((len(present), width + 1))
    solution[:, :width] = means / variance
    solution[:, width] = (
        np.log(weights / weights.sum()) - np.square(means).sum(axis=1) / 2 / variance
    )
    return solution


def balanced_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """``N / (classes present * images of the class)``, as scikit-learn's "balanced"."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.ones(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


class _Objective:
    """Value and gradient of the regularised mean loss, on the GPU where there is one."""

    def __init__(
        self,
        features: Tensor,
        labels: NDArray[np.int64],
        present: NDArray[np.int64],
        family: Family,
        C: float,
        class_weight: NDArray[np.float64] | None,
    ) -> None:
        self.features, self.device = features, features.device
        self.targets = torch.from_numpy(np.searchsorted(present, labels)).to(self.device)
        weights = np.ones(len(labels)) if class_weight is None else class_weight[labels]
        self.weights = torch.from_numpy(weights).to(features)[:, None]
        self.family = family
        self.penalty = 1.0 / (C * len(labels))
        self.count = len(labels)

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        width = self.features.shape[1]
        both = flat.reshape(-1, width + 1)
        weight = torch.from_numpy(both[:, :width]).to(self.features)
        bias = torch.from_numpy(both[:, width]).to(self.features)
        scores = torch.addmm(bias, self.features, weight.T)
        loss, slope = self._logistic(scores) if self.family == "logistic" else self._svm(scores)
        slope = slope * (self.weights / self.count)
        gradient = np.empty_like(both)
        gradient[:, :width] = (slope.T @ self.features).double().cpu().numpy()
        gradient[:, :width] += self.penalty * both[:, :width]
        gradient[:, width] = slope.sum(dim=0, dtype=torch.float64).cpu().numpy()
        value = float((loss * self.weights[:, 0]).sum(dtype=torch.float64)) / self.count
        value += 0.5 * self.penalty * float(np.square(both[:, :width]).sum())
        return value, gradient.ravel()

    def _logistic(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.log_softmax(scores, dim=1)
        picked = logs.gather(1, self.targets[:, None])
        slope = logs.exp_()
        slope.scatter_add_(1, self.targets[:, None], torch.full_like(picked, -1.0))
        return -picked[:, 0], slope

    def _svm(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        signs = torch.full_like(scores, -1.0)
        signs.scatter_(1, self.targets[:, None], 1.0)
        slack = torch.clamp(1.0 - signs * scores, min=0.0)
        return slack.square().sum(dim=1), -2.0 * signs * slack


def _first_bias(
    labels: NDArray[np.int64], present: NDArray[np.int64], family: Family
) -> NDArray[np.float64]:
    """Start the intercepts at the classes' shares: fewer steps where they are uneven."""
    if family == "svm":
        return np.full(len(present), -1.0 if len(present) > 1 else 1.0)
    shares = np.bincount(labels)[present] / len(labels)
    logs = np.log(shares)
    centred: NDArray[np.float64] = logs - logs.mean()
    return centred

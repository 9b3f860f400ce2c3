"""The test split, and what the classifier and the champion answer to its images."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftline.classifier.bundle import read_held_out
from graftline.data.snapshot import Snapshot
from graftline.progress import message
from graftline.stats.calibration import fit_temperature, softmax
from graftline.steps.evaluate.champion import ChampionAnswers, find_champion
from graftline.steps.evaluate.inference import Answers, Inference

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CalibratedAnswers:
    """Answers to the test images.

    Attributes:
        inference: Of the classifier.
        answers: The classifier's, uncalibrated.
        validation: Features of the validation images, shape (m, feature_dim).
        temperature: What its logits are divided by.
        champion: The champion's answers; None without a champion.
    """

    inference: Inference
    answers: Answers
    validation: NDArray[np.float32]
    temperature: float
    champion: ChampionAnswers | None

    @property
    def snapshot(self) -> Snapshot:
        """The data."""
        return self.inference.snapshot

    @property
    def rows(self) -> Ints:
        """Rows of the manifest, shape (n,)."""
        return self.answers.rows

    @cached_property
    def labels(self) -> Ints:
        """Class index of each image, shape (n,)."""
        return self.snapshot.labels()[self.rows]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated, shape (n, classes)."""
        return softmax(self.answers.logits, self.temperature)

    @cached_property
    def predicted(self) -> Ints:
        """The label given to each image, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the classifier gives an image its label, shape (n,)."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def groups(self) -> Ints | None:
        """A number for each image's group, shape (n,); None where every image stands alone."""
        ids = self.snapshot.image_ids()
        groups = self.snapshot.column("group")[self.rows].tolist()
        names = [
            str(group) if group else ids[row]
            for row, group in zip(self.rows.tolist(), groups, strict=True)
        ]
        _, numbers = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
        return None if len(set(numbers.tolist())) == len(names) else numbers.astype(np.int64)


def answer_test_split(
    inference: Inference, classifier_folder: Path, tracking_uri: str, registered_model: str
) -> CalibratedAnswers:
    """Ask the classifier, calibrate it, and ask the champion.

    Args:
        inference: The classifier with its images.
        classifier_folder: Has the logits of validation images that the classifier did not see.
        tracking_uri: Where the champion is registered; empty for no champion.
        registered_model: Its name.
    """
    answers = inference.answers(inference.snapshot.rows("test"), "test images")
    rows = inference.snapshot.rows("val")
    validation = inference.answers(rows, "validation images")
    logits, held_out = validation.logits, read_held_out(classifier_folder)
    if held_out is not None:  # of a model that did not see the images
        rows, logits = held_out.rows, held_out.logits
    temperature = fit_temperature(logits, inference.snapshot.labels()[rows])
    message("temperature %.3f, fitted on %s validation images", temperature, f"{len(rows):,}")
    champion = find_champion(inference, answers.rows, tracking_uri, registered_model)
    return CalibratedAnswers(inference, answers, validation.embedding, temperature, champion)

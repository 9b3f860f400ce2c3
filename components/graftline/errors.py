"""The one exception tree.

    GraftlineError
    ├── ConfigurationError          a mistake in what the user asked for
    ├── DataError                   the images or labels cannot be used
    ├── StoreError                  the object store or the disk
    │   ├── StoreNotFound
    │   ├── StoreAccessDenied
    │   ├── StoreUnreachable
    │   ├── StoreReadOnly
    │   ├── NoSpace
    │   ├── PreconditionFailed      a conditional write lost its race
    │   └── IntegrityError          bytes are not what their name or digest says
    ├── SchemaVersionError          an artifact written by another version
    ├── BackboneError
    │   ├── UnknownBackbone
    │   └── WeightsError
    ├── OutOfMemory                 this machine's or container's, or a GPU's
    ├── FrozenWeightsMoved          a tensor that must not change has changed
    ├── TrainingError               training cannot go on (diverged, out of memory)
    ├── ParityError                 the exported model is not the evaluated one
    ├── TrackingError               MLflow
    │   ├── TrackingUnreachable
    │   └── PromotionConflict       the champion is no longer the one compared with
    └── ClusterError                Kubeflow Pipelines

Every message names the value, why it failed and what to do next. A user's mistake ends in one
of these; a traceback means a fault of ours. No message holds a secret: see
:mod:`graftline.redaction`.
"""

import re
from urllib.parse import unquote

from graftline.redaction import redacted

_FILE_URI = re.compile(r"file://(/[^\s'\"<>]*)")


def _with_paths(text: str) -> str:
    """Paths of this machine as a person types them, in place of ``file:`` URIs."""
    return _FILE_URI.sub(lambda found: unquote(found[1]), text)


class GraftlineError(Exception):
    """Base of every error that Graftline raises on purpose.

    Args:
        what: The value and what is wrong with it, one sentence.
        why: The cause, where it is known.
        fix: What to do next.
    """

    def __init__(self, what: str, *, why: str | None = None, fix: str | None = None) -> None:
        self.what = _with_paths(redacted(what))
        super().__init__(self.what)
        self.why = _with_paths(redacted(why)) if why else why
        self.fix = redacted(fix) if fix else fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.fix:
            parts.append(f"What to do: {self.fix}")
        return "\n".join(parts)


class ConfigurationError(GraftlineError):
    """The run file, an option or a step's argument is wrong."""


class DataError(GraftlineError):
    """The images or labels cannot be used as they are."""


class StoreError(GraftlineError):
    """The store or the disk did not do what was asked."""


class StoreNotFound(StoreError):  # noqa: N818 -- reads better without the suffix where it is caught
    """No object, bucket or folder by that name."""


class StoreAccessDenied(StoreError):  # noqa: N818
    """The credentials do not allow this, or there are none."""


class StoreUnreachable(StoreError):  # noqa: N818
    """The endpoint did not answer within the time allowed."""


class StoreReadOnly(StoreError):  # noqa: N818
    """The folder or bucket cannot be written to."""


class NoSpace(StoreError):  # noqa: N818
    """The disk or the quota is full."""


class PreconditionFailed(StoreError):  # noqa: N818
    """A conditional write found the object in another state."""


class IntegrityError(StoreError):
    """The bytes read are not the bytes that were written."""


class SchemaVersionError(GraftlineError):
    """An artifact was written under another schema version."""


class BackboneError(GraftlineError):
    """A backbone cannot be used."""


class UnknownBackbone(BackboneError):  # noqa: N818
    """No library has an architecture by that name."""


class WeightsError(BackboneError):
    """Weights are missing, damaged, or do not fit the architecture."""


class OutOfMemory(GraftlineError):  # noqa: N818
    """A library was refused the memory that it asked for."""


class FrozenWeightsMoved(GraftlineError):  # noqa: N818
    """A frozen parameter or buffer changed during training."""


class TrainingError(GraftlineError):
    """Training cannot go on."""


class ParityError(GraftlineError):
    """The exported model answers differently from the evaluated one."""


class TrackingError(GraftlineError):
    """MLflow refused or failed."""


class TrackingUnreachable(TrackingError):  # noqa: N818
    """The MLflow server did not answer within the time allowed."""


class PromotionConflict(TrackingError):  # noqa: N818
    """The champion changed between the comparison and the promotion."""


class ClusterError(GraftlineError):
    """Kubeflow Pipelines refused, failed or cannot be reached."""

"""The run file: every key that a user may write, with its meaning, its default and its limits."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    Field,
    field_validator,
)

from graftline.errors import ConfigurationError
from graftline.images.fit import Fit
from graftline.settings import Section, without_credentials
from graftline.steps.backbone_config import ImageSize
from graftline.steps.evaluate.config import EvaluationSettings, GateSettings
from graftline.steps.export_onnx.config import ExportSettings
from graftline.steps.extract_features.config import ExtractSettings
from graftline.steps.fine_tune.config import FineTuneSettings, ScratchSettings
from graftline.steps.fit_head.config import AutoSettings, HeadSettings, ProbeSettings, Strategy
from graftline.steps.ingest.config import DataSettings
from graftline.steps.predict.config import PredictSettings
from graftline.steps.watch.config import RetrainWhen
from graftline_pipelines.runfile.cron import parse as parse_cron
from graftline_pipelines.runfile.pools import (
    DEFAULT_ASSIGNMENT,
    DEFAULT_POOLS,
    ClusterSettings,
    PoolSettings,
    StepName,
)
from graftline_pipelines.runfile.wording import NAME

AUTO_BACKBONE = "auto"


class PictureSettings(Section):
    """How a picture becomes the network's square input."""

    fit: Fit = "crop"
    """How wide and tall pictures are fitted. `crop`: the backbone's own way, mostly the middle
    square. `squash`: the whole picture, its sides pressed to a square. `pad`: the whole picture on
    the mean colour."""


class RaceSettings(Section):
    """`graftline race` and `backbone: auto`: each backbone's probe on a sample of the data."""

    backbones: tuple[str, ...] = ()
    """Names of those that compete. Default: `tf_efficientnet_lite0`, the same with `+blocks`,
    `tf_efficientnet_lite1` and `2`, as far as their weights are installed as Python packages."""
    images: Annotated[int, Field(ge=20)] = 2000
    """Training images of the largest sample."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """No further measurement begins that would likely end later. Default: no limit."""


class TrackingSettings(Section):
    """MLflow: where runs are logged and models are registered."""

    uri: str = "sqlite:///.graftline/mlflow.db"
    """An MLflow tracking URI. User name, password and token come from the `MLFLOW_TRACKING_*`
    variables, never from here."""
    experiment: str | None = None
    """The experiment's name. Default: the run file's `name`."""
    registered_model: str | None = None
    """The registered model's name. Default: the run file's `name`."""

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        return without_credentials(value)

    @field_validator("experiment", "registered_model")
    @classmethod
    def _is_said(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the name is empty; remove the key to use the run file's `name`")
        return value

    @field_validator("registered_model")
    @classmethod
    def _as_mlflow_takes_it(cls, value: str | None) -> str | None:
        if value is not None and any(character in value for character in "/:"):
            raise ValueError(f"MLflow takes no '/' and no ':' in a model's name, as in {value!r}")
        return value


class ImageSettings(Section):
    """The container images of the steps; `make images` builds them."""

    registry: str = ""
    """Registry and path, such as `registry.example.com/ml`; needed to submit."""
    tag: str = "0.1.0"
    """Tag, or digest as `sha256:...`, of `graftline-cpu` and `graftline-gpu`. `latest` is refused
    at submission."""
    gpu_tag: str | None = None
    """The same for `graftline-gpu` alone: needed with digests, since each image has its own."""
    require_digest: bool = False
    """Refuse at submission an image that is named by a tag: a tag can be moved, a digest cannot."""

    def reference(self, target: Literal["cpu", "gpu"]) -> str:
        """The full reference of one of the two images.

        Raises:
            ConfigurationError: The gpu image is wanted, and the only digest is the cpu image's.
        """
        tag = (self.gpu_tag or self.tag) if target == "gpu" else self.tag
        pinned = tag.startswith("sha256:")
        if target == "gpu" and pinned and not self.gpu_tag:
            raise ConfigurationError(
                f"images.tag: {tag} names one image, and a pool with accelerators needs another",
                why="A digest is that of graftline-cpu or of graftline-gpu, never of both.",
                fix="Set `images.gpu_tag` to the digest of graftline-gpu.",
            )
        prefix = f"{self.registry.rstrip('/')}/" if self.registry else ""
        return f"{prefix}graftline-{target}{'@' if pinned else ':'}{tag}"


class ScheduleSettings(Section):
    """When the cluster starts the pipeline by itself."""

    cron: str | None = None
    """Six fields: second, minute, hour, day of month, month, day of week; `0 30 2 * * *` is every
    night at half past two. Default: no schedule."""
    time_zone: str = "UTC"
    """The time zone that the cluster's scheduler reads `cron` in: UTC, unless its variable
    `CRON_SCHEDULE_TIMEZONE` says otherwise. This does not set it."""
    pipeline: Literal["retrain", "train"] = "retrain"
    """`retrain` checks for changes first; `train` trains each time."""
    enabled: bool = True
    """Whether the schedule fires."""

    @field_validator("cron")
    @classmethod
    def _as_kubeflow_reads_it(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_cron(value)
            except ConfigurationError as error:
                what = error.what.removeprefix("schedule.cron: ")
                raise ValueError(
                    " ".join(filter(None, (what + ".", error.why, error.fix))).rstrip(".")
                ) from None
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone such as UTC or Europe/Berlin") from None
        return value


class RetrainSettings(Section):
    """The `retrain` pipeline: check for changes first, train only if something changed."""

    when: RetrainWhen = RetrainWhen()
    """What starts training."""
    webhook_secret: str | None = None
    """Name of the Kubernetes secret whose key `url` is the address of a Slack-compatible webhook
    that receives the outcome. For runs on this machine, set the variable `GRAFTLINE_WEBHOOK_URL`
    instead."""
    quiet: bool = False
    """Send no message if nothing was trained."""


class RunSettings(Section):
    """One run file: a data set, a backbone, a strategy, and where results go."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the pipeline, and default name of the experiment and the registered model."""
    data: DataSettings
    """Where the labelled images are."""
    store: str = ".graftline/store"
    """Folder or `s3://bucket/prefix` for image shards, snapshots, features and checkpoints."""
    tracking: TrackingSettings = TrackingSettings()
    """Where MLflow is."""
    backbone: str = "tf_efficientnet_lite0"
    """A name that `graftline backbones` lists, with `+blocks` after it for the features of all its
    blocks; or `auto`: the first run lets the `race.backbones` compete on this data, and all runs
    take the one that was chosen."""
    race: RaceSettings = RaceSettings()
    """The backbones that compete for `backbone: auto`, and how long."""
    weights: str | None = None
    """Weights for the backbone: a file or store URI, safetensors or a PyTorch checkpoint. Default:
    the library's pretrained weights."""
    image_size: ImageSize | None = None
    """Input side in pixels. Default: the backbone's own."""
    image: PictureSettings = PictureSettings()
    """How pictures are fitted into the input."""
    extract: ExtractSettings = ExtractSettings()
    """Feature extraction."""
    strategy: Strategy = "auto"
    """How the classifier is made; `auto` measures, then decides."""
    auto: AutoSettings = AutoSettings()
    """Thresholds of `strategy: auto`."""
    probe: ProbeSettings = ProbeSettings()
    """The linear classifiers on frozen features."""
    head: HeadSettings = HeadSettings()
    """The fully connected head on frozen features."""
    fine_tune: FineTuneSettings = FineTuneSettings()
    """Training of the upper blocks."""
    scratch: ScratchSettings = ScratchSettings()
    """Training from random weights."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Measurement."""
    gate: GateSettings = GateSettings()
    """Promotion."""
    export: ExportSettings = ExportSettings()
    """The ONNX file."""
    images: ImageSettings = ImageSettings()
    """Container images, for a cluster."""
    pools: dict[str, PoolSettings] = Field(default_factory=lambda: dict(DEFAULT_POOLS))
    """Node pools by name, for a cluster."""
    assign: dict[StepName, str] = Field(default_factory=lambda: dict(DEFAULT_ASSIGNMENT))
    """The pool of each step. A step that is not named here keeps its default pool; steps without
    one run in `default`."""
    cluster: ClusterSettings = ClusterSettings()
    """What all steps share on a cluster."""
    schedule: ScheduleSettings = ScheduleSettings()
    """The schedule on the cluster."""
    retrain: RetrainSettings = RetrainSettings()
    """Training again when the data has changed."""
    predict: PredictSettings = PredictSettings()
    """Batch prediction on a cluster, with the champion."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of every random choice."""

    @field_validator("store")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        return without_credentials(value)

    @property
    def experiment(self) -> str:
        """The MLflow experiment."""
        return self.tracking.experiment or self.name

    @property
    def registered_model(self) -> str:
        """The MLflow registered model."""
        return self.tracking.registered_model or self.name


def arguments(section: BaseModel) -> dict[str, Any]:
    """A section as plain values that JSON can hold."""
    return section.model_dump(mode="json")


def new_run_id(name: str) -> str:
    """A run id that sorts by time and is a valid name everywhere."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{name}-{moment}-{secrets.token_hex(2)}"

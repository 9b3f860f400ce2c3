"""The run file: every key that a user may write, with its meaning, its default and its limits."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from graftline.errors import ConfigurationError
from graftline_pipelines.runfile.cron import parse as parse_cron
from graftline_pipelines.runfile.pools import (
    DEFAULT_ASSIGNMENT,
    DEFAULT_POOLS,
    ClusterSettings,
    PoolSettings,
    StepName,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Strategy = Literal["auto", "probe", "head", "fine_tune", "scratch"]


class Section(BaseModel):
    """A part of the run file: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SplitFractions(Section):
    """The share of the groups of images that each split is given. They sum to 1."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share that models are fitted on."""
    val: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share that choices and the calibration are made on."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share that nothing is chosen on: it gives the reported figures and the verdict."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"train, val and test sum to {total:g}, not 1; for example 0.7, 0.15 and 0.15"
            )
        return self


class DataSettings(Section):
    """Where the labelled images are and how they are read."""

    source: str
    """A folder, `file://...` or `s3://bucket/prefix`; for a table, the CSV file itself."""
    format: Literal["auto", "folders", "table", "shards"] = "auto"
    """`folders`: a folder for each class. `table`: a CSV file with an image and a label column.
    `shards`: WebDataset tar files. `auto` looks and says what it found."""
    split: SplitFractions = SplitFractions()
    """Shares of the three splits; an image never changes its split afterwards."""
    image_column: str = "image"
    """Table only: the column with the image's path, relative to the table, or its URI."""
    label_column: str = "label"
    """Table only: the column with the label."""
    split_column: str = "split"
    """Table only: the column with `train`, `val` or `test`; obeyed where the table has it."""
    group_column: str | None = None
    """Table only: images with equal values (a patient, a camera, a day) share one split.
    Without it, near-duplicates do."""
    attributes: tuple[str, ...] = ()
    """Table only: columns kept with each image; the evaluation is sliced by them."""

    @field_validator("source")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        return without_credentials(value)


class TrackingSettings(Section):
    """MLflow: where runs are logged and models are registered."""

    uri: str = "sqlite:///.graftline/mlflow.db"
    """An MLflow tracking URI. User name, password and token come from the `MLFLOW_TRACKING_*`
    variables, never from here."""
    experiment: str | None = None
    """The experiment's name; the run file's `name` where absent."""
    registered_model: str | None = None
    """The registered model's name; the run file's `name` where absent."""

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        return without_credentials(value)


class ExtractSettings(Section):
    """How the frozen network is run over the images."""

    engine: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto"
    """`auto` takes the fastest on the machine, by a short trial that is remembered there."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """`auto` takes bf16 where the processor has it; its agreement with fp32 is measured and kept
    with the features. Features of another precision are other features."""
    batch_size: PositiveInt | None = None
    """Images in one forward pass; chosen for the machine where absent."""
    workers: Annotated[int, Field(ge=1, le=100)] = 1
    """Tasks that share the extraction on a cluster; more than one pays from about 100,000 new
    images."""


class AutoSettings(Section):
    """`strategy: auto`: from where on fine-tuning is worth its cost. See the decision guide."""

    large_images_per_class: PositiveInt = 500
    """Median images per class from which the data counts as large."""
    similar_accuracy: Fraction = 0.8
    """Cross-validated accuracy on frozen features from which the data counts as similar to what
    the backbone was trained on."""
    good_enough: Fraction = 0.97
    """Cross-validated accuracy of the probe from which fine-tuning is not tried: too little is
    left to gain."""
    fewest_images_per_class: PositiveInt = 50
    """Median images per class under which small and different data is not fine-tuned either."""


class ProbeSettings(Section):
    """`strategy: probe`: k-NN, logistic regression and linear SVM on frozen features."""

    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = (0.001, 0.01, 0.1, 1.0)
    """Values of C (inverse regularisation strength) that are tried."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation; fewer where a class has fewer images."""
    knn: tuple[PositiveInt, ...] = (1, 5, 20)
    """Numbers of neighbours that are tried; k-NN measures similarity and is not promoted."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weights images by the inverse frequency of their class."""
    search_images: PositiveInt = 10_000
    """Training images beyond which the grid is searched on a stratified sample of so many; the
    chosen classifier is fitted on all."""


class HeadSettings(Section):
    """`strategy: head`: fully connected layers trained on frozen features."""

    hidden: tuple[PositiveInt, ...] = (256,)
    """Width of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout before each layer."""
    epochs: PositiveInt = 100
    """Most epochs; training stops earlier when validation no longer improves."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay of AdamW."""
    patience: PositiveInt = 10
    """Epochs without improvement on validation before training stops."""


class TrainSettings(Section):
    """What `fine_tune` and `scratch` have in common."""

    epochs: PositiveInt = 10
    """Epochs over the training split."""
    batch_size: PositiveInt = 64
    """Images in one optimiser step; split into smaller passes where memory is short."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate of the head."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of AdamW; none on biases and normalisation."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises from zero."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread over the wrong classes."""
    augment: bool = True
    """Random resized crops of the training images."""
    flip: bool = False
    """Random horizontal flips; wrong where left and right matter, as with digits and text."""
    patience: PositiveInt = 5
    """Epochs without improvement on validation before training stops."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weights images by the inverse frequency of their class."""


class FineTuneSettings(TrainSettings):
    """`strategy: fine_tune`: lower blocks frozen, upper blocks and head trained."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Factor on the learning rate from each block to the one below it."""
    frozen_fraction: Fraction = 0.5
    """Share of the blocks, counted from the input, that stay frozen."""


class ScratchSettings(TrainSettings):
    """`strategy: scratch`: random weights, to measure what the transfer was worth."""

    epochs: PositiveInt = 30
    """Epochs over the training split."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""


class EvaluationSettings(Section):
    """How the classifier is measured on the test split."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Replicates of the bootstrap."""
    top_k: PositiveInt = 5
    """The k of the top-k accuracy; fewer where there are fewer classes."""
    worst_mistakes: Annotated[int, Field(ge=0, le=200)] = 24
    """Pictures of the most confident mistakes on the page."""
    robustness_images: Annotated[int, Field(ge=0)] = 64
    """Test images that are corrupted to measure robustness; 0 leaves it out."""
    reject_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the validation images that must pass the "none of these" threshold."""


class GateSettings(Section):
    """When a new model replaces the champion. See the gate guide."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Accuracy that the new model may lose at most, at the stated confidence."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of each test."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Accuracy that the new model must gain; 0: not worse, and newer, is enough."""
    max_class_drop: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Recall that no class may lose beyond noise."""
    min_accuracy: Fraction = 0.0
    """Test accuracy under which nothing is promoted."""
    max_ece: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Expected calibration error over which nothing is promoted."""
    max_slice_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Accuracy that no slice named in `slices` may lose beyond noise."""
    min_slice_accuracy: Fraction = 0.0
    """Accuracy under which no slice named in `slices` may be."""
    slices: tuple[str, ...] = ()
    """Slices that the gate guards: `column` for each value of it, or `column=value`; an attribute
    column, or `size`, `brightness`, `shape`, `format`, `source`."""
    allow_removed_classes: bool = False
    """Whether a class that the champion knows may be gone from the data."""


class ExportSettings(Section):
    """How the classifier becomes an ONNX file."""

    opset: Annotated[int, Field(ge=18, le=24)] = 20
    """ONNX operator set."""
    label_tolerance: Annotated[int, Field(ge=0)] = 0
    """Test images on which the file's label may differ from PyTorch's."""
    max_probability_difference: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Largest difference of a probability between the file and PyTorch, in fp32."""
    int8: bool = False
    """Also write a statically quantised file, calibrated on training images."""
    fp16: bool = False
    """Also write a half-precision file."""
    max_drop: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Test accuracy that a smaller file may lose; beyond it the file is refused."""


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
    night at half past two. No schedule where absent."""
    time_zone: str = "UTC"
    """The time zone that the cluster's scheduler reads `cron` in: UTC, unless its variable
    `CRON_SCHEDULE_TIMEZONE` says otherwise. This does not set it."""
    pipeline: Literal["retrain", "train"] = "retrain"
    """`retrain` looks for changes first; `train` trains each time."""
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


class RetrainWhen(Section):
    """Any one of these starts training."""

    new_images: PositiveInt | None = None
    """So many images are new."""
    new_fraction: Annotated[float, Field(gt=0)] | None = 0.05
    """So many images are new, as a share of the champion's."""
    labels_changed: PositiveInt | None = 1
    """So many images carry another label than they did."""
    drift: Annotated[float, Field(gt=0, lt=1)] | None = 0.05
    """The new images' features differ from the champion's at this false discovery rate."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """The champion is older than this."""
    always: bool = False
    """Train at every run."""


class RetrainSettings(Section):
    """The `retrain` pipeline: look first, train only if something changed."""

    when: RetrainWhen = RetrainWhen()
    """What starts training."""
    webhook_secret: str | None = None
    """Name of the Kubernetes secret whose key `url` is the address of a Slack-compatible webhook
    that is told the outcome. On this machine, the variable `GRAFTLINE_WEBHOOK_URL` holds it."""
    quiet: bool = False
    """Tell the webhook nothing where nothing was trained."""


class RunSettings(Section):
    """One run file: a data set, a backbone, a strategy, and where results go."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    """Name of the pipeline, and default name of the experiment and the registered model."""
    data: DataSettings
    """Where the labelled images are."""
    store: str = ".graftline/store"
    """Folder or `s3://bucket/prefix` for image shards, snapshots, features and checkpoints."""
    tracking: TrackingSettings = TrackingSettings()
    """MLflow."""
    backbone: str = "tf_efficientnet_lite0"
    """A name that `graftline backbones` lists."""
    weights: str | None = None
    """Weights for the backbone: a file or store URI, safetensors or a PyTorch checkpoint. The
    library's pretrained weights where absent."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Input side in pixels; the backbone's own where absent."""
    extract: ExtractSettings = ExtractSettings()
    """Feature extraction."""
    strategy: Strategy = "auto"
    """How the classifier is made; `auto` measures, then decides."""
    auto: AutoSettings = AutoSettings()
    """Thresholds of `auto`."""
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
    """The pool of each step. One that is not named keeps the pool of this default, or else runs
    in `default`."""
    cluster: ClusterSettings = ClusterSettings()
    """What all steps share on a cluster."""
    schedule: ScheduleSettings = ScheduleSettings()
    """When the cluster starts it."""
    retrain: RetrainSettings = RetrainSettings()
    """Training again when the data has changed."""
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


def without_credentials(uri: str) -> str:
    """Refuse a URI with a user or password in it: run files and pipelines are not secret."""
    scheme, separator, rest = uri.partition("://")
    authority = rest.partition("/")[0]
    if separator and "@" in authority:
        raise ValueError(
            f"the {scheme}:// address holds a user or password, which would be readable in the "
            "compiled pipeline; take it out and set the AWS_* or MLFLOW_TRACKING_* variables"
        )
    return uri


def arguments(section: BaseModel) -> dict[str, Any]:
    """A section as plain values that JSON can hold."""
    return section.model_dump(mode="json")


def new_run_id(name: str) -> str:
    """A run id that sorts by time and is a valid name everywhere."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{name}-{moment}-{secrets.token_hex(2)}"

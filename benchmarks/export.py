"""The exported files against PyTorch: size, latency, throughput, and what int8 loses.

    python benchmarks/export.py                             everything, under 6 minutes a part
    python benchmarks/export.py --backbones resnet50        the speed of one network
    python benchmarks/export.py --only accuracy             what int8 and fp16 lose on real data

Parts:
    speed      of the whole way from uint8 pixels of 375 x 500 to probabilities: the files by ONNX
               Runtime, and PyTorch in fp32 (eager, channels_last, compiled with frozen weights)
               behind the same preprocessing, in its fastest form.
    accuracy   `graftline run` on scikit-learn's digits with int8 and fp16 asked for: test accuracy
               lost, as the step measured it. Real weights: tf_efficientnet_lite0.

All modes run one after another in each of several rounds, and a mode's time is the median of its
rounds; a machine that others use blurs them, the ratios less than the times. With --json the last
line is one JSON object with `fp32_over_best_torch` (throughput of the fp32 file over that of the
best mode of PyTorch, at a batch of 32), `int8_over_fp32` (the same of the int8 file over the fp32
one), `int8_careful_over_fp32` (of the last form that the step tries, which leaves the first
convolutions in fp32) and `int8_accuracy_drop`, each by backbone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from graftline.classifier.bundle import Classifier
from graftline.models.backbone import build
from graftline.onnx_model.predict import ModelMetadata, OnnxClassifier
from graftline.steps.export_onnx.graph import compose_graph, save_model
from graftline.steps.export_onnx.low_precision import SPARED
from graftline.steps.export_onnx.network_graph import export_network
from graftline.steps.export_onnx.quantise import to_fp16, to_int8

BACKBONES = ("tf_efficientnet_lite0", "resnet50")
PARTS = ("speed", "accuracy")
CLASSES = 10
IMAGE = (375, 500)  # height and width
BATCHES = (1, 32)
TARGETS = {"fp32_over_best_torch": 1.0, "int8_over_fp32": 1.5}
OPSET = 20

Run = Callable[[np.ndarray], object]


def classifier_of(backbone_name: str) -> Classifier:
    """A backbone with a random head; its real weights where this machine has them."""
    pretrained = backbone_name == "tf_efficientnet_lite0"
    weights = None if pretrained else "random"
    backbone = build(backbone_name, weights=weights, pretrained=pretrained)
    return Classifier(
        backbone,
        torch.nn.Linear(backbone.spec.feature_dim, CLASSES),
        [str(number) for number in range(CLASSES)],
        preprocessing=backbone.spec.preprocessing,
        strategy="probe",
        snapshot_id="",
    ).eval()


def write_files(classifier: Classifier, folder: Path) -> dict[str, Path]:
    """The file in every precision, by its name in the table."""
    network = export_network(classifier, OPSET)
    calibration = np.stack([classifier.preprocessing.apply(i).numpy() for i in pictures(16)])
    made = {
        "ONNX fp32": network,
        "ONNX int8": to_int8(network, calibration, spared=SPARED[0]),
        "ONNX int8-careful": to_int8(network, calibration, spared=SPARED[-1]),
        "ONNX fp16": to_fp16(network),
    }
    paths = {}
    for name, converted in made.items():
        metadata = ModelMetadata(
            classes=classifier.classes,
            preprocessing=classifier.preprocessing.to_dict(),
            opset=OPSET,
        )
        paths[name] = folder / f"{name.split()[1]}.onnx"
        save_model(compose_graph(converted, metadata, classifier), paths[name])
    return paths


def pictures(count: int) -> np.ndarray:
    """Made-up photographs, uint8 (N, H, W, 3): smooth, as real ones are."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.uniform(0, 255, (count, 3, 12, 16)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=IMAGE, mode="bicubic").clip(0, 255)
    return smooth.permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()


def torch_modes(classifier: Classifier) -> dict[str, Run]:
    """PyTorch's fp32 modes, from pixels to probabilities."""
    import copy

    import torch._inductor.config as inductor

    inductor.freezing = True
    last = copy.deepcopy(classifier).to(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(classifier).to(memory_format=torch.channels_last))
    modes: dict[str, tuple[Callable[..., torch.Tensor], torch.memory_format]] = {
        "PyTorch eager": (classifier, torch.contiguous_format),
        "PyTorch channels_last": (last, torch.channels_last),
        "PyTorch compiled": (compiled, torch.channels_last),
    }

    def way(network: Callable[..., torch.Tensor], form: torch.memory_format) -> Run:
        def run(images: np.ndarray) -> object:
            with torch.no_grad():
                ready = torch.stack([classifier.preprocessing.apply(each) for each in images])
                return torch.softmax(network(ready.contiguous(memory_format=form)), dim=1)

        return run

    return {name: way(*mode) for name, mode in modes.items()}


def times(modes: dict[str, Run], images: np.ndarray, seconds: float) -> dict[str, float]:
    """Median seconds of a call of each mode, over rounds that hold one call of each."""
    found: dict[str, list[float]] = {name: [] for name in modes}
    for run in modes.values():
        run(images)  # compiles, allocates
        run(images)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found["ONNX fp32"]) < 5:
        for name, run in modes.items():
            started = time.perf_counter()
            run(images)
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in found.items()}


def speed(backbone: str, seconds: float, console: Console) -> dict[str, float]:
    """Print the table of one backbone; its two ratios."""
    classifier = classifier_of(backbone)
    with tempfile.TemporaryDirectory() as temporary:
        paths = write_files(classifier, Path(temporary))
        modes: dict[str, Run] = {
            name: OnnxClassifier(path, threads=torch.get_num_threads()).run
            for name, path in paths.items()
        }
        modes |= torch_modes(classifier)
        measured = {size: times(modes, pictures(size), seconds) for size in BATCHES}
        sizes = {name: path.stat().st_size / 1e6 for name, path in paths.items()}
    table = Table(title=f"{backbone}, {torch.get_num_threads()} threads", title_justify="left")
    for column in ("", "MB", "ms at batch 1", "ms at batch 32", "images a second"):
        table.add_column(column, justify="left" if not column else "right")
    for name in modes:
        one, many = measured[1][name], measured[32][name]
        size = f"{sizes[name]:.1f}" if name in sizes else ""
        table.add_row(name, size, f"{1e3 * one:.1f}", f"{1e3 * many:.0f}", f"{32 / many:.0f}")
    console.print(table)
    at_32 = measured[32]
    best = min(value for name, value in at_32.items() if name.startswith("PyTorch"))
    return {
        "fp32_over_best_torch": round(best / at_32["ONNX fp32"], 2),
        "int8_over_fp32": round(at_32["ONNX fp32"] / at_32["ONNX int8"], 2),
        "int8_careful_over_fp32": round(at_32["ONNX fp32"] / at_32["ONNX int8-careful"], 2),
    }


def accuracy(console: Console) -> dict[str, float]:
    """Run the pipeline on digits; accuracy lost by precision."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write = Path(__file__).parent.parent / "examples" / "write_digits.py"
        subprocess.run([sys.executable, write, folder / "digits"], check=True, capture_output=True)
        (folder / "run.yaml").write_text(
            "name: digits\ndata: {source: digits}\nstore: store\n"
            "tracking: {uri: 'sqlite:///mlflow.db'}\n"
            "backbone: tf_efficientnet_lite0\nstrategy: probe\n"
            "export: {int8: true, fp16: true}\n"
        )
        code = "from graftline_pipelines.cli.main import main; main()"
        command = [sys.executable, "-c", code, "run", "run.yaml"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        record = next((folder / ".graftline/runs").rglob("export_onnx.json"))
        result = json.loads(record.read_text())
    table = Table(title="digits, tf_efficientnet_lite0", title_justify="left")
    for column in ("", "MB", "accuracy", "lost", "same label", "speedup at 32", "refused"):
        table.add_column(column)
    for precision, each in result["smaller"].items():
        table.add_row(
            precision,
            f"{each['bytes'] / 1e6:.1f}",
            f"{each['accuracy']:.4f}",
            f"{each['accuracy_drop']:.4f}",
            f"{each['label_agreement']:.4f}",
            f"{each['speedup']:.2f}",
            each["refused"] or "no",
        )
    console.print(table)
    return {name: round(each["accuracy_drop"], 4) for name, each in result["smaller"].items()}


def main() -> int:
    """Run the parts that were asked for; 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="comma-separated")
    parser.add_argument("--only", choices=PARTS, help="one part; both when not given")
    parser.add_argument("--seconds", type=float, default=15, help="of measuring a batch size")
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    console = Console(width=100)
    answer: dict[str, dict[str, float]] = {name: {} for name in TARGETS}
    for backbone in options.backbones.split(",") if options.only != "accuracy" else ():
        for name, value in speed(backbone, options.seconds, console).items():
            answer.setdefault(name, {})[backbone] = value
    if options.only != "speed":
        answer["int8_accuracy_drop"] = {"tf_efficientnet_lite0": accuracy(console)["int8"]}
    missed = [
        f"{name} of {backbone} is {value}, the target {target}"
        for name, target in TARGETS.items()
        for backbone, value in answer[name].items()
        if value < target
    ]
    for each in missed:
        console.print(f"Missed: {each}.")
    if options.json:
        print(json.dumps(answer))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

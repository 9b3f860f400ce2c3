"""A graph prepared beside other steps is the one that ``export_onnx`` takes and waits for."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from graftline.classifier.bundle import load_classifier, save_classifier
from graftline.models.backbone import build
from graftline.steps.export_onnx import kept_network
from graftline.steps.export_onnx.kept_network import network_of
from graftline.steps.export_onnx.network_graph import export_network
from graftline.steps.export_onnx.prepare import prepare

CLASSES = ["cat", "dog", "eel"]
NAME = "timm/test_resnet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "graftline/networks"


def asked(store: Path, **changed: Any) -> dict[str, Any]:
    """What a local run asks for."""
    return {
        "backbone": NAME,
        "weights": "random",
        "image_size": None,
        "fit": "crop",
        "store": str(store),
        "strategy": "auto",
        "hidden": [256],
        "dropout": 0.2,
        "opset": 20,
        "classes": len(CLASSES),
        "fingerprint": build(NAME, weights="random").fingerprint(),
        "precision": "fp32",
        **changed,
    }


def test_what_was_prepared_is_what_a_bundle_of_the_run_exports_to(
    make_classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(asked(tmp_path / "store"))
    made = make_classifier(NAME, CLASSES).with_temperature(0.3)
    save_classifier(tmp_path / "bundle", made)
    classifier = load_classifier(tmp_path / "bundle").eval()
    wanted = export_network(classifier, 20).SerializeToString(deterministic=True)

    def exported_again(*_: Any) -> None:
        raise AssertionError("the prepared graph was not found")

    monkeypatch.setattr(kept_network, "export_network", exported_again)
    assert network_of(classifier, 20).SerializeToString(deterministic=True) == wanted


def test_another_backbone_than_the_runs_own_is_not_prepared(tmp_path: Path, cache: Path) -> None:
    assert not prepare(asked(tmp_path / "store", fingerprint="of images read otherwise"))
    assert not cache.exists()


def _prepare_slowly(wanted: dict[str, Any], started: Any) -> None:
    export = kept_network.export_network

    def slowly(*arguments: Any) -> Any:
        started.set()
        time.sleep(1)
        return export(*arguments)

    kept_network.export_network = slowly
    torch.set_num_threads(1)
    prepare(wanted)


def test_a_graph_that_another_process_exports_is_waited_for(
    make_classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make_classifier(NAME, CLASSES).with_temperature(0.3).eval()
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    other = context.Process(target=_prepare_slowly, args=(asked(tmp_path / "store"), started))
    other.start()
    assert started.wait(120)
    exported: list[Any] = []
    monkeypatch.setattr(kept_network, "export_network", lambda *given: exported.append(given))
    assert network_of(classifier, 20) is not None
    other.join()
    assert not exported

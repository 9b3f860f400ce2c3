"""The training graph, whole, under KFP's local runner: real images, weights, MLflow and ONNX."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKBONE = "mobilenetv3_small_050"  # the smallest there is; random weights unless a test says


def test_probe_is_promoted_and_a_second_run_extracts_and_promotes_nothing(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run_file = {"data": {"source": str(make_digits_folder(per_class=40, classes=4))}}
    first, shown = run_graftline(run_file, "--json")
    assert sum(first["images"].values()) == 160
    assert first["classes"] == ["0", "1", "2", "3"]
    assert first["strategy"] == "probe"
    assert (first["extracted"], first["reused"]) == (160, 0)
    assert first["test"]["accuracy"] > 0.8  # of about a dozen images
    low, high = first["test"]["accuracy_ci"]
    assert low <= first["test"]["accuracy"] <= high
    assert first["verdict"]["promote"] and first["verdict"]["reasons"]
    assert first["parity"]["images"] == first["images"]["test"]
    assert first["parity"]["label_agreement"] == 1.0
    assert first["parity"]["max_probability_difference"] <= 1e-3
    assert first["registered"] == {"name": "digits", "version": "1", "alias": "champion"}
    assert Path(first["onnx"]).is_file()
    assert "<html" in Path(first["report"]).read_text(encoding="utf-8").lower()
    expected = ["ingest", "extract_features", "fit_head", "evaluate", "export_onnx", "promote"]
    assert [step for step in first["seconds"] if step != "total"] == expected
    assert "Test accuracy" in shown

    second, _ = run_graftline(run_file, "--json")
    assert second["snapshot_id"] == first["snapshot_id"]
    assert (second["extracted"], second["reused"]) == (0, 160)
    assert not second["verdict"]["promote"]
    assert second["registered"]["alias"] is None
    assert any("not better" in reason for reason in second["verdict"]["reasons"])
    assert second["reused_steps"] == dict.fromkeys(
        ["fit_head", "evaluate", "export_onnx"], first["run_id"]
    )
    assert Path(second["onnx"]).read_bytes() == Path(first["onnx"]).read_bytes()
    assert first["run_id"] in Path(second["report"]).read_text(encoding="utf-8")


def test_fine_tuning_branch_on_a_table_with_its_own_splits_in_s3(
    run_graftline: Callable[..., Any],
    make_digits_folder: Callable[..., Path],
    s3_bucket: str,
    tmp_path: Path,
) -> None:
    import boto3

    folder = make_digits_folder(per_class=20, classes=2)
    client = boto3.client("s3")
    rows = ["image,label,split,writer"]
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        key = f"{path.parent.name}/{path.name}"
        client.upload_file(str(path), s3_bucket.removeprefix("s3://"), f"images/{key}")
        split = ("train", "train", "train", "val", "test")[index % 5]
        rows.append(f"{key},{path.parent.name},{split},w{index % 3}")
    client.put_object(
        Bucket=s3_bucket.removeprefix("s3://"), Key="images/t.csv", Body="\n".join(rows).encode()
    )
    result, _ = run_graftline(
        {
            "data": {"source": f"{s3_bucket}/images/t.csv", "attributes": ["writer"]},
            "store": f"{s3_bucket}/store",
            "backbone": BACKBONE,
            "weights": "random",
            "image_size": 64,
            "strategy": "fine_tune",
            "fine_tune": {"epochs": 2, "batch_size": 8, "frozen_fraction": 0.5},
        },
        "--json",
    )
    assert result["images"] == {"train": 24, "val": 8, "test": 8}
    assert "fine_tune" in result["seconds"]
    assert result["decision"]["outcome"] is not None
    assert result["parity"]["label_agreement"] == 1.0
    assert result["registered"]["version"] == "1"


def test_fan_out_gives_the_features_of_one_worker(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run_file = {  # images enough to be worth two workers
        "data": {"source": str(make_digits_folder(per_class=100, classes=3))},
        "backbone": BACKBONE,
        "weights": "random",
        "image_size": 32,
        "strategy": "probe",
        "extract": {"workers": 2, "engine": "onnxruntime"},
    }
    result, _ = run_graftline(run_file, "--json")
    assert (result["extracted"], result["reused"]) == (300, 0)
    assert {"plan_extraction", "extract_share_0", "extract_share_1"} <= set(result["seconds"])
    by_two = {path.read_bytes() for path in tmp_path.rglob("features.npy")}
    assert len(by_two) == 1

    from graftline.steps.extract_features.step import run

    snapshot = next(path.parent for path in tmp_path.rglob("snapshot.json"))
    shutil.copytree(
        tmp_path / "store", tmp_path / "other", ignore=shutil.ignore_patterns("features")
    )
    alone = run(
        snapshot_folder=snapshot,
        store=str(tmp_path / "other"),
        features_folder=tmp_path / "alone",
        backbone=BACKBONE,
        weights="random",
        image_size=32,
        engine="onnxruntime",
    )
    assert (alone.extracted, alone.reused) == (300, 0)
    assert {(tmp_path / "alone" / "features.npy").read_bytes()} == by_two


def test_failing_step_is_shown_with_its_error_name_and_log(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path]
) -> None:
    folder = make_digits_folder(per_class=5, classes=2)
    for path in (folder / "1").iterdir():  # only decoding tells that one class is left
        path.write_bytes(b"not an image")
    _, shown = run_graftline({"data": {"source": str(folder)}}, code=1)
    assert "Step ingest failed" in shown
    assert "class" in shown and "What to do" in shown
    assert "ingest.log" in shown
    assert "Traceback" not in shown

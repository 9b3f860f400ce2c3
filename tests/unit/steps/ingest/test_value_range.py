"""One value range for a data set: measured, remembered, given, refused, and taken along."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graftline.data.snapshot import read_images, read_snapshot
from graftline.errors import ConfigurationError, DataError
from graftline.images.decode import decode, decode_image
from graftline.images.preprocessing import Preprocessing
from graftline.images.stored_values import Values
from graftline.onnx_model.predict import ModelMetadata, doubt_of, read_image
from graftline.steps.ingest import step as ingest
from graftline.steps.ingest.value_range import _of_wide, usual_range
from graftline.storage import open_store


def scene(seed: int, side: int = 24) -> np.ndarray:
    """Smooth noise in 0..1 with its own brightness, so that no two look alike."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.uniform(0, 1, (5, 5)).astype(np.float32))
    large = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    return np.clip(large, 0, 1) * random.uniform(0.3, 1)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(folder: Path, make: Any, suffix: str = "png", count: int = 5) -> Path:
    """Two classes; ``make`` turns 0..1 into what the file stores. One image reaches 1."""
    for label in (0, 1):
        for number in range(count):
            values = scene(100 * label + number)
            if number == 0:
                values = values / values.max()
            save(folder / f"c{label}" / f"{number}.{suffix}", make(values))
    return folder


def run(folder: Path, tmp_path: Path, name: str = "snapshot", **options: Any) -> Any:
    return ingest.run(
        source=str(folder),
        store=str(tmp_path / "store"),
        snapshot_folder=tmp_path / name,
        **options,
    )


KINDS = [
    ("png", lambda v: (v * 4095).astype(np.uint16), (0, 4095)),
    ("png", lambda v: (v * 65_535).astype(np.uint16), (0, 65_535)),
    ("tif", lambda v: (v * 4095 - 1024).astype(np.int32), (-1024, 3071)),
    ("tif", lambda v: (v * 3000 + 28_000).astype(np.uint16), (28_000, 31_000)),
    ("tif", lambda v: v.astype(np.float32), (0, 1)),
    ("tif", lambda v: (v * 255).astype(np.float32), (0, 255)),
    ("tif", lambda v: (v * 1000).astype(np.float32), (0, 1023)),
    ("tif", lambda v: (v * 250_000).astype(np.int32), (0, 262_143)),
]


@pytest.mark.parametrize(("suffix", "make", "bounds"), KINDS, ids=range(len(KINDS)))
def test_the_range_is_measured_over_the_set_and_kept_in_the_snapshot(
    suffix: str, make: Any, bounds: tuple[float, float], tmp_path: Path
) -> None:
    result = run(write(tmp_path / "data", make, suffix), tmp_path)
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert snapshot.value_range == bounds and result.value_range == list(bounds)
    # Brightness means the same in every image: what is read is what was drawn.
    drawn = {f"c{label}/{n}": scene(100 * label + n) for label in (0, 1) for n in range(5)}
    for row, data in read_images(snapshot, snapshot.rows()):
        name = str(snapshot.column("source")[row]).partition(".")[0]
        values = drawn[name] / (drawn[name].max() if name.endswith("/0") else 1)
        stored = make(values).astype(np.float64)
        exact = np.clip((stored - bounds[0]) / (bounds[1] - bounds[0]), 0, 1) * 255
        found = decode(data, value_range=snapshot.value_range)
        assert np.abs(found[..., 0] - exact).max() <= 0.5 + 1e-6
        assert len(np.unique(found)) > 60


def test_sets_of_8_bits_are_as_they_were(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 255).astype(np.uint8))
    result = run(folder, tmp_path)
    head = json.loads((tmp_path / "snapshot" / "snapshot.json").read_text())
    assert "value_range" not in head and result.value_range is None
    assert "value_range" not in result.params() and result.warnings == []
    # Version 0.1.0 gave these ten images this id.
    assert result.snapshot_id == "6ee09f3f27b87ab929e73cc144f5d858"
    # A range that says what 8 bits say anyway is no mistake.
    assert run(folder, tmp_path, value_range=[0, 255]).snapshot_id == result.snapshot_id


def test_a_given_range_counts_and_makes_other_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095 - 1024).astype(np.int32), "tif")
    measured = run(folder, tmp_path)
    given = run(folder, tmp_path, "given", value_range=[-160, 240])
    assert read_snapshot(tmp_path / "given").value_range == (-160, 240)
    assert given.snapshot_id != measured.snapshot_id
    again = run(folder, tmp_path, "again")  # what was given is not remembered
    assert again.snapshot_id == measured.snapshot_id and again.value_range == [-1024, 3071]


@pytest.mark.parametrize("wrong", [[5], [5, 5], [9, 1], [0, float("inf")]])
def test_a_range_that_is_none_is_refused(wrong: list[float], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.value_range"):
        run(
            write(tmp_path / "data", lambda v: (v * 255).astype(np.uint8)),
            tmp_path,
            value_range=wrong,
        )


def test_a_range_with_nothing_to_apply_to_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 255).astype(np.uint8))
    with pytest.raises(ConfigurationError, match="nothing to apply to"):
        run(folder, tmp_path, value_range=[0, 4095])


def test_the_range_is_remembered_and_widened_only_where_it_must_be(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16), count=12)
    first = run(folder, tmp_path)
    save(folder / "c0" / "dark.png", (scene(77) * 300).astype(np.uint16))
    (folder / "c0" / "0.png").unlink()  # the one that reached the top
    (folder / "c1" / "0.png").unlink()
    second = run(folder, tmp_path)
    assert second.value_range == first.value_range == [0, 4095]
    save(folder / "c0" / "bright.png", (scene(78) / scene(78).max() * 16_000).astype(np.uint16))
    third = run(folder, tmp_path)
    assert third.value_range == [0, 16_383]
    assert any("leave the range of 0 to 4095" in warning for warning in third.warnings)


def test_one_hot_pixel_does_not_set_the_range(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16))
    hot = (scene(5, 64) * 4095).astype(np.uint16)
    hot[3, 3] = 65_535
    save(folder / "c0" / "hot.png", hot)
    assert run(folder, tmp_path).value_range == [0, 4095]


def test_blank_and_nearly_black_images_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16))
    save(folder / "c0" / "flat.png", np.full((24, 24), 900, np.uint16))
    save(folder / "c1" / "dark.png", (scene(9) * 200).astype(np.uint16))
    warnings = " ".join(run(folder, tmp_path).warnings)
    assert "1 image shows one value everywhere" in warnings and "c0/flat.png" in warnings
    assert "1 image is nearly black" in warnings and "c1/dark.png" in warnings

    eight = write(tmp_path / "eight", lambda v: (v * 255).astype(np.uint8))
    save(eight / "c0" / "flat.png", np.full((24, 24, 3), 90, np.uint8))
    save(eight / "c1" / "dark.png", (scene(9) * 12).astype(np.uint8))
    checks = (np.indices((24, 24)).sum(0) % 2 * 255).astype(np.uint8)
    save(eight / "c1" / "checks.png", checks)  # even in its thumbnail, and yet no blank
    warnings = " ".join(run(eight, tmp_path).warnings)
    assert "c0/flat.png" in warnings and "c1/dark.png" in warnings and "checks" not in warnings
    again = run(eight, tmp_path)  # nothing is fetched now
    assert again.fetched == 0 and "c0/flat.png" in " ".join(again.warnings)


def test_integers_and_floats_of_other_ranges_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16), "tif")
    save(folder / "c0" / "share.tif", scene(50).astype(np.float32))
    with pytest.raises(DataError, match="no single range") as refused:
        run(folder, tmp_path)
    assert "data.value_range" in str(refused.value.fix)


def test_eight_bits_among_more_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16))
    save(folder / "c0" / "eight.png", (scene(60) * 255).astype(np.uint8))
    warnings = run(folder, tmp_path).warnings
    assert any(
        "8-bit images: 1, read from 0 to 255; images of more bits: 10" in warning
        for warning in warnings
    )


@pytest.mark.parametrize(("suffix", "fetched"), [("png", 0), ("tif", 10)])
def test_a_store_of_an_older_graftline_is_measured_once(
    suffix: str, fetched: int, tmp_path: Path
) -> None:
    folder = write(tmp_path / "data", lambda v: (v * 4095).astype(np.uint16), suffix)
    first = run(folder, tmp_path)
    store = open_store(str(tmp_path / "store"))
    pointer = next(i.key for i in store.list("sources/") if i.key.endswith(".json"))
    head = json.loads(store.read(pointer))
    del head["value_range"]
    table = pq.read_table(io.BytesIO(store.read(head["images"]))).drop_columns("values")
    sink = io.BytesIO()
    pq.write_table(table, sink)
    del head["seal"], head["commit"]  # nor had it these, and names held half a digest
    digest = hashlib.sha256(sink.getvalue()).hexdigest()[:32]
    head["images"] = f"{head['images'].rpartition('-')[0]}-{digest}.parquet"
    store.write(head["images"], sink.getvalue())
    store.write(pointer, json.dumps(head).encode())
    second = run(folder, tmp_path)
    assert second.fetched == fetched and second.value_range == [0, 4095]
    assert second.snapshot_id == first.snapshot_id
    assert run(folder, tmp_path).fetched == 0


@pytest.mark.parametrize(
    ("kind", "low", "high", "bounds"),
    [
        ("int16", -1000, 2000, (-1024, 3071)),
        ("uint16", 0, 0, (0, 1)),
        ("uint16", 7, 7, (7, 8)),
        ("float32", -1, 1, (-1, 1)),
        ("float32", 0, 1.25, (0, 1.3)),
        ("float32", 0, 0.04, (0, 0.04)),
        ("int8", -128, 127, (-128, 127)),
        ("uint32", 0, 4e9, (0, 2**32 - 1)),
    ],
)
def test_usual_ranges(kind: str, low: float, high: float, bounds: tuple[float, float]) -> None:
    assert usual_range([Values(kind, low, low, high, high)]) == bounds


def test_the_range_travels_with_the_model(tmp_path: Path) -> None:
    plain = Preprocessing(64, 73, "bicubic", "center", (0.5,) * 3, (0.5,) * 3)
    assert set(plain.to_dict()) == {
        *("input_size", "resize_size", "interpolation", "crop_mode", "mean", "std")
    }
    wide = Preprocessing.from_dict(plain.to_dict() | {"value_range": [0, 4095]})
    assert Preprocessing.from_dict(wide.to_dict()) == wide != plain
    metadata = ModelMetadata(classes=("a", "b"), preprocessing=wide.to_dict())
    properties = metadata.to_properties()
    assert json.loads(properties["graftline.value_range"]) == [0, 4095]
    back = ModelMetadata.from_properties(properties, "model.onnx")
    assert back.value_range == (0, 4095)
    older = ModelMetadata(classes=("a", "b"), preprocessing=plain.to_dict())
    assert older.value_range is None and "graftline.value_range" not in older.to_properties()
    array = (scene(1) * 4095).astype(np.uint16)
    save(tmp_path / "one.png", array)
    found = read_image(tmp_path / "one.png", back.value_range)
    assert np.array_equal(found[..., 0], np.rint(array * (255 / 4095)))


def test_predict_says_where_an_image_is_not_of_the_models_kind() -> None:
    def doubt(array: np.ndarray, bounds: tuple[float, float] | None) -> str | None:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        return doubt_of(decode_image(stream.getvalue(), value_range=bounds), bounds)

    eight, wide = (scene(1) * 255).astype(np.uint8), (scene(1) * 4095).astype(np.uint16)
    assert doubt(eight, None) is None and doubt(wide, (0, 4095)) is None
    assert "uint16 values, and the model was trained on images of 8 bits" in str(doubt(wide, None))
    assert "it has 8 bits" in str(doubt(eight, (0, 4095)))
    assert "lie outside of what the model reads" in str(doubt(wide, (28_000, 31_000)))


def _wide(highs: list[float], kind: str = "uint16") -> list[Values]:
    return [Values(kind, 0.0, 0.0, high, high) for high in highs]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_two_depths_in_one_set_are_refused_unless_a_range_is_given(bits: int) -> None:
    """12-bit images among 16-bit ones show 16 of 256 grey levels and are taken for dark scenes."""
    end = 2.0**bits - 1
    mixed = _wide([0.4 * end, 0.7 * end, end, end, 60_000, 50_000, 65_535])
    with pytest.raises(DataError, match=f"{bits}-bit.*\n?.*") as refused:
        _of_wide(mixed, None, None)
    assert "data.value_range: [0, 65535]" in str(refused.value)
    assert _of_wide(mixed, (0, 65_535), None).value_range == (0, 65_535)


@pytest.mark.parametrize(
    "highs",
    [
        [900, 1500, 2500, 4095, 4095],
        [4000, 9000, 20_000, 40_000, 65_535],
        [200, 300, 60_000, 65_535],
        [3000, 3100, 60_000, 65_535],
        [4095, 60_000, 65_000],
    ],
)
def test_dark_and_bright_scenes_of_one_depth_are_one_set(highs: list[float]) -> None:
    bits = 12 if max(highs) < 2**12 else 16
    assert _of_wide(_wide(highs), None, None).value_range == (0, 2**bits - 1)

"""Worker processes that decode beside a device; they need none."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftline.errors import DataError
from graftline.images.preprocessing import Preprocessing
from graftline.inference.decode_workers import SLOTS, DecodingWorkers, network_input

PREPARE = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """37 small JPEG files of several sizes."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(37):
        height, width = generator.integers(40, 90, 2)
        stream = io.BytesIO()
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append(stream.getvalue())
    return files


def inputs(images: list[bytes]) -> np.ndarray:
    out = np.empty((len(images), 3, 32, 32), np.float32)
    for row, data in enumerate(images):
        network_input(data, PREPARE, out[row])
    return out


def decoded(workers: DecodingWorkers, images: Iterator[bytes] | list[bytes]) -> list[np.ndarray]:
    found = []
    for slot, count in workers.batches(images):
        assert not workers.ring[slot, count:].any(), "the last batch is filled with zeros"
        found.append(workers.ring[slot, :count].copy())
        workers.release(slot)
    return found


@pytest.mark.parametrize("memfd", [True, False])
def test_the_inputs_come_in_order(
    photos: list[bytes], memfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with DecodingWorkers(PREPARE, batch_size=8, workers=2) as workers:
        found = decoded(workers, photos)
    assert [len(part) for part in found] == [8, 8, 8, 8, 5]
    assert np.concatenate(found).tobytes() == inputs(photos).tobytes()
    assert not any(process.is_alive() for process in workers._processes)


def test_whole_batches_and_batches_smaller_than_the_workers(photos: list[bytes]) -> None:
    for images, size, wanted in ((photos[:8], 4, [4, 4]), (photos[:7], 1, 7 * [1])):
        with DecodingWorkers(PREPARE, batch_size=size, workers=3) as workers:
            found = decoded(workers, images)
        assert [len(part) for part in found] == wanted
        assert np.concatenate(found).tobytes() == inputs(images).tobytes()


def test_no_images_give_no_batches() -> None:
    with DecodingWorkers(PREPARE, batch_size=4, workers=1) as workers:
        assert list(workers.batches([])) == []


def test_batches_are_decoded_ahead_until_the_ring_is_full(photos: list[bytes]) -> None:
    """Nobody releases: all slots come all the same, and no image is written over."""
    with DecodingWorkers(PREPARE, batch_size=2, workers=2) as workers:
        batches = workers.batches(photos)
        slots = [next(batches)[0] for _ in range(SLOTS)]
        assert sorted(slots) == list(range(SLOTS))
        found = workers.ring[slots].reshape(-1, 3, 32, 32)
        assert found.tobytes() == inputs(photos[: 2 * SLOTS]).tobytes()
        workers.release(slots[0])
        assert next(batches) == (slots[0], 2)


def test_the_next_batch_is_begun_before_the_last_image_of_one_is_decoded(
    photos: list[bytes],
) -> None:
    """One worker waits for a slow image; the other goes on with the next batch meanwhile."""
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    taken, beside_the_first = 0, 0
    images = [stream.getvalue(), *photos]

    def taking() -> Iterator[bytes]:
        nonlocal taken
        for data in images:
            taken += 1
            yield data

    with DecodingWorkers(PREPARE, batch_size=4, workers=2) as workers:
        for slot, _ in workers.batches(taking()):
            beside_the_first = beside_the_first or taken
            workers.release(slot)
    assert beside_the_first > 8, "no more than the second batch was taken"


def test_of_several_broken_images_the_first_is_named_in_every_run(photos: list[bytes]) -> None:
    images = [*photos[:11], b"no image", b"nor this", *photos[13:30], b"", *photos[31:]]
    for workers_ in (1, 3, 3):
        with (
            pytest.raises(DataError, match="Image 111 cannot be decoded: not an image"),
            DecodingWorkers(PREPARE, batch_size=4, workers=workers_) as workers,
        ):
            for slot, _ in workers.batches(images, first=100):
                workers.release(slot)


def test_batches_before_a_broken_image_come(photos: list[bytes]) -> None:
    found = []
    with (
        pytest.raises(DataError, match="Image 9 "),
        DecodingWorkers(PREPARE, batch_size=4, workers=2) as workers,
    ):
        for slot, _ in workers.batches([*photos[:9], b"no image"]):
            found.append(workers.ring[slot].copy())
            workers.release(slot)
    assert np.concatenate(found).tobytes() == inputs(photos[:8]).tobytes()


def test_an_error_of_the_source_comes_through(photos: list[bytes]) -> None:
    def failing() -> Iterator[bytes]:
        yield from photos[:5]
        raise ConnectionError("the store is gone")

    with (
        pytest.raises(ConnectionError, match="the store is gone"),
        DecodingWorkers(PREPARE, batch_size=4, workers=2) as workers,
    ):
        decoded(workers, failing())


def test_they_can_be_left_in_the_middle(photos: list[bytes]) -> None:
    source = iter(photos * 3)
    with DecodingWorkers(PREPARE, batch_size=4, workers=1) as workers:
        next(workers.batches(source))
    rest = list(source)  # nobody else reads on
    assert 0 < len(rest) < 3 * len(photos)
    assert not any(process.is_alive() for process in workers._processes)
    assert "decoding" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seen_dead", [False, True])
def test_one_that_is_killed_is_an_error_not_a_wait(
    count: int, seen_dead: bool, photos: list[bytes]
) -> None:
    """Whether it is found out by what is sent to it or by what is awaited from it."""
    with (
        pytest.raises(DataError, match="worker ended unexpectedly"),
        DecodingWorkers(PREPARE, batch_size=4, workers=count) as workers,
    ):
        for slot, _ in workers.batches(photos * 20):
            workers._processes[0].kill()
            if seen_dead:
                workers._processes[0].join()
            workers.release(slot)


def test_all_that_are_killed_at_once_are_an_error(photos: list[bytes]) -> None:
    with (
        pytest.raises(DataError, match="worker ended unexpectedly"),
        DecodingWorkers(PREPARE, batch_size=4, workers=2) as workers,
    ):
        for process in workers._processes:
            process.kill()
            process.join()
        decoded(workers, photos)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_the_ring_is_memory_without_a_name_and_without_an_open_file() -> None:
    def names() -> list[str]:
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                links.append(os.readlink(entry))
            except OSError:  # that of the listing itself
                continue
        return [link for link in links if "memfd:graftline" in link]

    with DecodingWorkers(PREPARE, batch_size=4, workers=1) as workers:
        maps = Path("/proc/self/maps").read_text()
        mapped = [line for line in maps.splitlines() if "/memfd:graftline" in line]
        assert len(mapped) == 1 and "rw-s" in mapped[0]
        assert len(names()) <= 1, "only what the map itself keeps"
        ring = workers.ring
    del workers
    ring[:] = 1.0  # alive as long as it is used
    del ring
    assert "/memfd:graftline" not in Path("/proc/self/maps").read_text()
    assert names() == []


SCRIPT = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
with (folder / "main").open("a") as file:
    file.write("main imported\\n")
sys.path.insert(0, str(folder / "modules"))  # its torch says that it was imported
from graftline.inference.decode_workers import DecodingWorkers
from graftline.images.preprocessing import Preprocessing
prepare = Preprocessing(32, 32, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
with DecodingWorkers(prepare, batch_size=2, workers=2) as workers:
    print([count for _, count in workers.batches(3 * [(folder / "photo.jpg").read_bytes()])])
print(sys.modules["__main__"].SCRIPT_NAME)
"""


def test_a_script_without_a_guard_works_and_is_imported_once(
    photos: list[bytes], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("SCRIPT_NAME = 'still here'\n" + SCRIPT)
    (tmp_path / "photo.jpg").write_bytes(photos[0])
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").write_text(
        f"with open({str(tmp_path / 'torch')!r}, 'a') as file:\n    file.write('torch')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 1]\nstill here\n"
    assert (tmp_path / "main").read_text() == "main imported\n"
    assert not (tmp_path / "torch").exists(), "a worker imported PyTorch"

"""Fuzzing guided by coverage, where atheris is installed; see test_fuzz.

python tests/faults/fuzz_readers.py KIND CORPUS_FOLDER -runs=100000

A corpus begins with the real files of :mod:`hostile`, and keeps what reaches new code.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["graftline", "PIL", "yaml", "tarfile", "csv"]):
    import hostile

    from graftline.data.sources import open_source
    from graftline.errors import GraftlineError
    from graftline.images.decode import decode_image
    from graftline.models.weights.checkpoint_file import read_file
    from graftline.onnx_model.predict import OnnxClassifier
    from graftline_pipelines.runfile.load import load

Reader = Callable[[bytes, Path], object]


def read_image(data: bytes, _: Path) -> None:
    decode_image(data)


def read_table(data: bytes, folder: Path) -> None:
    (folder / "t.csv").write_bytes(data)
    open_source(str(folder / "t.csv")).entries()


def read_archive(data: bytes, folder: Path) -> None:
    (folder / "0.tar").write_bytes(data)
    source = open_source(str(folder))
    for entry in source.entries():
        for _ in source.unpack(entry, 2**20) if entry.archive else ():
            pass


def read_run_file(data: bytes, folder: Path) -> None:
    (folder / "run.yaml").write_bytes(data)
    load(folder / "run.yaml")


def read_onnx(data: bytes, folder: Path) -> None:
    (folder / "m.onnx").write_bytes(data)
    OnnxClassifier(folder / "m.onnx", threads=1)


def read_safetensors(data: bytes, folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(data)
    read_file(folder / "w.safetensors", "w.safetensors")


READERS: dict[str, tuple[Reader, Callable[[], list[bytes]]]] = {
    "images": (read_image, hostile.image_files),
    "tables": (read_table, lambda: [text.encode() for text in hostile.TABLES.values()]),
    "archives": (read_archive, hostile.tar_files),
    "run_files": (read_run_file, lambda: [hostile.RUN_FILE.encode()]),
    "onnx": (read_onnx, hostile.onnx_files),
    "safetensors": (read_safetensors, lambda: hostile.safetensors_files()[:2]),
}


def main() -> None:
    """Fuzz one kind of file; ends with a traceback at the first error that is not documented."""
    kind, corpus = sys.argv[1], Path(sys.argv[2])
    read, seeds = READERS[kind]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        if len(data) < 2**16:
            (corpus / f"seed-{number}").write_bytes(data)
    work = Path(tempfile.mkdtemp(prefix="graftline-fuzz-"))

    def one(data: bytes) -> None:
        with contextlib.suppress(GraftlineError):
            read(data, work)

    limits = ["-rss_limit_mb=3000", "-timeout=20", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[3:], str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Mutates real files and gives them to what reads them; see test_hostile_files.

python tests/faults/hostile.py KIND FIRST_SEED COUNT FOLDER
"""

import gzip
import io
import json
import random
import resource
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graftline.errors import GraftlineError

MEMORY = 3 * 2**30  # of address space; libraries alone map most of it
RESIDENT = 1.5 * 2**30
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few changes of the kinds that broke readers before."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            return data
        at = rng.randrange(len(data))
        if rng.random() < 0.3:
            at = rng.randrange(min(len(data), 64))  # headers
        how = rng.randrange(7)
        if how == 0:
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif how == 1:
            data = data[:at]
        elif how == 2:
            number = rng.choice(NUMBERS).to_bytes(4, rng.choice(("big", "little")))
            data = data[:at] + number + data[at + 4 :]
        elif how == 3:
            size = rng.randrange(1, 64)
            data = data[:at] + data[at : at + size] * rng.randrange(2, 50) + data[at + size :]
        elif how == 4:
            data = data[:at] + rng.randbytes(rng.randrange(1, 32)) + data[at:]
        elif how == 5:
            data = data[:at] + data[at + rng.randrange(1, 128) :]
        else:
            other = rng.randrange(len(data))
            data = data[:at] + data[other : other + 32] + data[at + 32 :]
    return data


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def image_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 31, 3), np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65_536, (24, 31)).astype(np.uint16))
    floats = Image.fromarray(rng.random((24, 31)).astype(np.float32))
    rgba = Image.fromarray(rng.integers(0, 256, (24, 31, 4), np.uint8))
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"]
    files = [_saved(rgb, kind) for kind in kinds]
    files += [_saved(rgb, "JPEG", progressive=True), _saved(rgb.convert("CMYK"), "JPEG")]
    files += [_saved(grey16, "PNG"), _saved(grey16, "TIFF"), _saved(floats, "TIFF")]
    files += [_saved(rgba, "PNG"), _saved(rgba, "TIFF"), _saved(rgba, "WEBP")]
    files += [_saved(rgb, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg")]
    files += [_saved(rgb.quantize(16), "PNG"), _saved(rgb.convert("1"), "TIFF")]
    return files


def images(rng: random.Random, _: Path, files: list[bytes]) -> None:
    from graftline.images.decode import decode_image
    from graftline.images.stored_values import OWN

    data = mutate(rng.choice(files), rng)
    decode_image(data, value_range=rng.choice((None, OWN)), shortest=rng.choice((None, 8)))


TABLES = {
    "t.csv": "image,label,split\n" + "".join(f"{n}.png,c{n % 2},train\n" for n in range(9)),
    "t.tsv": 'image\tlabel\n"1.png"\t"a ""b"""\n2.png\tc\n',
    "t.jsonl": "".join(json.dumps({"image": f"{n}.png", "label": n % 2}) + "\n" for n in range(9)),
    "metadata.csv": "file_name,label\n1.png,a\n../../canary,b\nfile:///etc/passwd,a\n",
}
ODD_CELLS = (
    *("../" * 40 + "etc/passwd", "/etc/passwd", "file:///etc/shadow", "s3://", "\x00", "=1+1"),
    *("http://169.254.169.254/latest", "x" * 70_000, "\ud800", "[" * 5000, "{" * 5000 + "1"),
)


def tables(rng: random.Random, folder: Path, _: list[bytes]) -> None:
    from graftline.data.sources import open_source

    name = rng.choice(list(TABLES))
    data = TABLES[name].encode()
    if rng.random() < 0.5:
        cell = rng.choice(ODD_CELLS).encode("utf-8", "surrogatepass")
        data = data.replace(b"2.png", cell).replace(b"c1", cell)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(mutate(data, rng))
    (folder / "1.png").write_bytes(b"x")
    for entry in open_source(str(folder)).entries():
        assert len(entry.path) < 1000 and (entry.problem is None or len(entry.problem) < 300)


def tar_files() -> list[bytes]:
    files = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
            for name in (
                "a/1.png",
                "a/1.cls",
                "../../../canary",
                "/tmp/canary.png",
                "b/" * 20 + "c" * 90 + ".png",
            ):
                info = tarfile.TarInfo(name)
                info.size = 9
                tar.addfile(info, io.BytesIO(b"overwrite"))
            for link, kind_of in (
                ("../../canary", tarfile.SYMTYPE),
                ("/etc/passwd", tarfile.LNKTYPE),
            ):
                info = tarfile.TarInfo("c/link.png")
                info.type, info.linkname = kind_of, link
                tar.addfile(info)
                inside = tarfile.TarInfo("c/link.png/x.png")
                inside.size = 9
                tar.addfile(inside, io.BytesIO(b"overwrite"))
            device = tarfile.TarInfo("d.png")
            device.type = tarfile.BLKTYPE
            tar.addfile(device)
        files += [stream.getvalue(), gzip.compress(stream.getvalue())]
    files.append(gzip.compress(bytes(64 * 2**20)))  # a bomb
    return files


def archives(rng: random.Random, folder: Path, files: list[bytes]) -> None:
    from graftline.data.sources import open_source

    for path in folder.iterdir():
        path.unlink()
    (folder / "0.tar").write_bytes(mutate(rng.choice(files), rng))
    source = open_source(str(folder))
    for entry in source.entries():
        for member, data in source.unpack(entry, 2**20) if entry.archive else ():
            assert len(data) <= 2**20 and member.path.startswith("0.tar#")


def parquet_files() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = []
    png = [{"bytes": b"picture", "path": f"{n}.png"} for n in range(9)]
    for image in (png, [f"{n}.png" for n in range(9)], [b"picture"] * 9):
        stream = io.BytesIO()
        pq.write_table(pa.table({"image": image, "label": ["a", "b", "c"] * 3}), stream)
        files.append(stream.getvalue())
    return files


def parquet(rng: random.Random, folder: Path, files: list[bytes]) -> None:
    from graftline.data.sources import open_source

    for path in folder.iterdir():
        path.unlink()
    (folder / "0.parquet").write_bytes(mutate(rng.choice(files), rng))
    source = open_source(str(folder))
    for entry in source.entries():
        for _ in source.unpack(entry, 2**20) if entry.archive else ():
            pass


RUN_FILE = """\
name: pets
seed: 3
data: {source: s3://bucket/pets, split: {train: 0.7, val: 0.15, test: 0.15}, exclude: [docs]}
store: s3://bucket/store
backbone: resnet18
tracking: {uri: "http://mlflow:5000", experiment: x}
strategy: auto
"""
YAML_ATTACKS = (
    '!!python/object/apply:os.system ["touch {canary}"]',
    '!!python/object/new:subprocess.Popen [["touch", "{canary}"]]',
    "!!python/name:os.system",
    "&a [" + "*a, " * 9 + "*a]",
    "[" * 3000,
    "{x: " * 2000,
    "&a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e]\n"
    "g: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g]",
    "9" * 6000,
    "1e999999",
    ".nan",
    "2026-13-45",
    "http://169.254.169.254/",
)


def run_files(rng: random.Random, folder: Path, _: list[bytes]) -> None:
    from graftline_pipelines.runfile.load import load

    text = RUN_FILE
    if rng.random() < 0.6:
        attack = rng.choice(YAML_ATTACKS).replace("{canary}", str(folder.parent / "canary2"))
        value = rng.choice(("s3://bucket/pets", "resnet18", "pets", "auto", "3\n", "[docs]"))
        text = text.replace(value, attack, 1)
    data = mutate(text.encode(), rng) if rng.random() < 0.7 else text.encode()
    (folder / "run.yaml").write_bytes(data)
    load(folder / "run.yaml")


def onnx_files() -> list[bytes]:
    """A model as it is exported, but small; others whose weights are outside their folder."""
    import onnx
    from onnx import TensorProto, helper

    from graftline.onnx_model.predict import ModelMetadata

    how = {"resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    said = ModelMetadata(classes=("a", "b"), preprocessing=how, temperature=1.5).to_properties()
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.5] * 6)
    outside = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.5] * 6)
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    files = []
    for tensor, location in ((weights, ""), (outside, "../../canary"), (outside, "/etc/passwd")):
        one = TensorProto()
        one.CopyFrom(tensor)
        if location:
            one.external_data.add(key="location", value=location)
        nodes = [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["embedding"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["embedding", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2]),
                helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
            ],
            [one],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.helper.set_model_props(model, said)
        files.append(model.SerializeToString())
    return files


ODD_METADATA = (
    *("null", "[]", "{}", "[1, 2]", '["a"]', '["a", "b", "c"]', "[" * 3000, "1e999", "NaN", ""),
    *('{"value_range": [5]}', '{"value_range": "x"}', '{"none_of_these": 3}', '"x"', "true"),
)


def onnx(rng: random.Random, folder: Path, files: list[bytes]) -> None:
    """Loads a mutated model and classifies with it: bytes, nodes or metadata are changed."""
    from onnx import ModelProto

    from graftline.onnx_model.predict import OnnxClassifier

    data = files[0] if rng.random() < 0.8 else rng.choice(files)
    how = rng.random()
    if how < 0.5:
        data = mutate(data, rng)
    elif how < 0.75:  # valid protobuf with other content
        model = ModelProto.FromString(data)
        node = rng.choice(model.graph.node)
        node.op_type = rng.choice(
            ("Identity", "Flatten", "Shape", "Relu", "Sqrt", "Log", "Transpose", "ConstantOfShape")
        )
        if rng.random() < 0.5:
            del node.attribute[:]
        if rng.random() < 0.3:
            model.graph.initializer[0].dims[rng.randrange(2)] = rng.choice((0, -1, 3, 2**40))
        data = model.SerializeToString()
    elif how < 0.95:
        model = ModelProto.FromString(data)
        rng.choice(model.metadata_props).value = rng.choice(ODD_METADATA)
        data = model.SerializeToString()
    (folder / "m.onnx").write_bytes(data)
    (folder / "i.png").write_bytes(_saved(Image.new("RGB", (9, 7), (9, 99, 199)), "PNG"))
    (answer,) = OnnxClassifier(folder / "m.onnx", threads=1).predict([folder / "i.png"])
    assert answer.label in ("a", "b", "c")


NETWORK = "timm/test_resnet"


def safetensors_files() -> list[bytes]:
    from safetensors.numpy import save
    from safetensors.torch import save as save_torch

    from graftline.models.backbone import build

    small = [save({"w": np.zeros((3, 4), np.float32), "b": np.zeros(3, np.float16)}), save({})]
    network = build(NETWORK, weights="random", image_size=32)
    return [*small, save_torch(dict(network.network.state_dict()))]


HEADERS = (
    '{"w":{"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,8]}}',
    '{"w":{"dtype":"F32","shape":[-1],"data_offsets":[8,0]}}',
    '{"__metadata__":{"a":"' + "x" * 5000 + '"}}',
    '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{}}',
    "[" * 4000,
)


def safetensors(rng: random.Random, folder: Path, files: list[bytes]) -> None:
    """Reads a mutated file; one in twenty as the weights of a network, which then answers."""
    import torch

    from graftline.models.backbone import build
    from graftline.models.weights.checkpoint_file import read_file

    path = folder / "w.safetensors"
    if rng.random() < 0.05:
        path.write_bytes(_other_weights(rng, files[-1]))
        backbone = build(NETWORK, weights=str(path), image_size=32)
        with torch.inference_mode():
            backbone(torch.zeros(1, 3, 32, 32))
        return
    data = rng.choice(files[:-1])
    if rng.random() < 0.4:  # a header that asks for what is not there
        head = rng.choice(HEADERS).encode()
        data = len(head).to_bytes(8, "little") + head + bytes(8)
    path.write_bytes(mutate(data, rng) if rng.random() < 0.8 else data)
    read_file(path, "w.safetensors")


def _other_weights(rng: random.Random, data: bytes) -> bytes:
    """A network's weights with another shape, type, name or value; or bytes changed at random."""
    from safetensors.torch import load, save

    how = rng.randrange(6)
    if how == 0:
        return mutate(data, rng)
    tensors = load(data)
    name = rng.choice(list(tensors))
    if how == 1:
        tensors[name] = tensors[name].flatten()[: rng.randrange(3)].clone()
    elif how == 2:
        tensors[name] = tensors[name].double()
    elif how == 3:
        tensors["module." + name] = tensors.pop(name)
    elif how == 4:
        tensors[name] = tensors[name] * float("nan")
    else:
        tensors[name] = tensors[name].unsqueeze(0).clone()
    return save(tensors)


KINDS: dict[str, tuple[Callable[..., None], Callable[[], list[bytes]]]] = {
    "images": (images, image_files),
    "tables": (tables, list),
    "archives": (archives, tar_files),
    "parquet": (parquet, parquet_files),
    "run_files": (run_files, list),
    "onnx": (onnx, onnx_files),
    "safetensors": (safetensors, safetensors_files),
}


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Give the mutated files of these seeds to their reader."""
    read, make = KINDS[kind]
    work = folder / "work"
    work.mkdir(exist_ok=True)
    files = make()
    ended = {"answer": 0, "error": 0}
    for seed in range(first, first + count):
        try:
            read(random.Random(f"{kind} {seed}"), work, files)
        except GraftlineError as error:
            assert str(error) and len(str(error)) < 20_000, (
                f"seed {seed}: {len(str(error))} letters"
            )
            ended["error"] += 1
        except BaseException:
            print(f"{kind}, seed {seed}")
            raise
        else:
            ended["answer"] += 1
        if seed == first:  # libraries are loaded: from here on memory is the files' own
            resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY,) * 2)
            start = _resident()
    grown = _resident() - start
    assert grown < RESIDENT, f"{grown / 2**20:,.0f} MiB more"
    print(f"{count} cases: {ended}, {grown / 2**20:,.0f} MiB more at the most")


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

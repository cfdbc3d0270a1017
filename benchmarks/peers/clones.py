"""The peers of benchmarks/peers.py: how a clone is known, what is mended at run time, and how it is asked to train.

A peer trains in its own loop, with its own networks, losses, optimizers, fades and moving average. What it reads are
images from memory, in place of files that it would decode.
"""

import builtins
import importlib
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.job import EVER, Feed, Growth, Job, Loader, TimeIsUp, Trained
from peers.mends import Mends
from progan.networks import parameter_count
from progan.support.errors import DataError


def _ready(job: Job, besides: str) -> Mends:
    """What both clones need before they can be imported; besides: a module of this clone alone."""
    sys.path.insert(0, str(job.clone))
    mends = Mends()
    mends.stand_in("torchvision", "torchvision.transforms", "torchvision.utils")
    mends.stand_in(besides)
    mends.adam()
    return mends


def train_akanimax(job: Job, feed: Feed) -> Trained:
    """`ProGAN.train` of the clone."""
    mends = _ready(job, "torch.utils.tensorboard")
    _import_akanimax(mends)
    gan, networks, layers, utils, script = (
        importlib.import_module(name)
        for name in (
            *(f"pro_gan_pytorch.{name}" for name in ("gan", "networks", "custom_layers", "utils")),
            "pro_gan_pytorch_scripts.train",
        )
    )
    transposed = layers.EqualizedConvTranspose2d
    padding = transposed._output_padding
    transposed._output_padding = lambda self, *args: padding(self, *args, num_spatial_dims=2)
    mends.note("_output_padding is told that images have two dimensions", "PyTorch asks for it since 1.12")
    defaults = _akanimax_defaults(script, mends)

    shape = job.config.g
    stages, depth = len(shape.resolutions), len(shape.resolutions) + 1
    networks.nf = partial(networks.nf, fmap_base=shape.fmap_base, fmap_max=shape.fmap_max)  # no option leads to it
    g, d = (
        kind(depth=depth, latent_size=shape.z_dim, use_eql=defaults.use_eql)
        for kind in (networks.Generator, networks.Discriminator)
    )
    repeats = defaults.batch_repeats if job.own and job.seconds else 1
    lr, average, whose = job.config.schedule.g_lr[4], job.config.ema_decay, Growth.of(job.config)
    if job.own:
        lr, average = defaults.g_lrate, defaults.ema_beta
        epochs, percents = defaults.epochs[:stages], defaults.fade_in_percentages[:stages]
        fade = (0, *(e * p / 100 for e, p in zip(epochs[1:], percents[1:], strict=True)))
        whose = Growth(tuple(epochs), fade)
    start, batches, percents = depth, [EVER**2] * stages, [0.0] * stages
    if job.seconds:
        growth, _ = job.growth(whose)
        start, batches = 2, [max(1, round(n / job.minibatch / repeats)) for n in growth.nimg]
        percents = [100 * part / whole for part, whole in zip(growth.fade, growth.nimg, strict=True)]
        batches[-1], percents[-1] = batches[-1] * EVER, percents[-1] / EVER
    full = shape.resolution
    loaders = iter(
        [
            Loader(1, lambda: feed.read(full)),  # for its picture of reals
            *(Loader(n, lambda: feed.take(full)) for n in batches[start - 2 :]),
        ]
    )
    gan.get_data_loader = lambda *_: next(loaders)
    trainer = gan.ProGAN(g, d, use_ema=defaults.use_ema, ema_beta=average)
    with tempfile.TemporaryDirectory() as folder, suppress(TimeIsUp):
        trainer.train(
            dataset=range(0),
            epochs=[1] * stages,
            batch_sizes=[job.minibatch] * stages,
            fade_in_percentages=percents,
            loss_fn=defaults.loss_fn,
            batch_repeats=repeats,
            gen_learning_rate=lr,
            dis_learning_rate=lr,
            start_depth=start,
            feedback_factor=0,
            save_dir=Path(folder),
        )
    settings = {"lr": lr, "average": average, "batch_repeats": repeats}
    settings |= {"reals": [n * job.minibatch for n in batches[:-1]], "fade_percents": percents[:-1]}
    about = _about(job, feed.nimg * repeats, g, d, mends, f"its moving average ({average})", settings)

    def draw(count: int) -> np.ndarray:
        images = trainer.gen_shadow(torch.randn(count, shape.z_dim), depth, 1.0)
        return utils.post_process_generated_images(images).transpose(0, 3, 1, 2)

    return Trained(draw, about)


def _import_akanimax(mends: Mends) -> None:
    """The package, one of whose files uses a name that it does not import."""
    try:
        importlib.import_module("pro_gan_pytorch.gan")
    except NameError as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pro_gan_pytorch"]:
            del sys.modules[name]
        builtins.Tuple = typing.Tuple  # type: ignore[attr-defined]  # noqa: UP006
        importlib.import_module("pro_gan_pytorch.gan")
        mends.note("Tuple is given to networks.py", f"it does not import it ({error})")


def _akanimax_defaults(script: Any, mends: Mends) -> Any:
    """What its command line takes where nothing is given."""
    words = sys.argv
    sys.argv = ["train", "images", "out"]
    try:
        if not hasattr(script, "sys"):
            script.sys = sys
            mends.note("sys is given to the script that knows the defaults", "it does not import it")
        return script.parse_arguments()
    finally:
        sys.argv = words


def train_zoo(job: Job, feed: Feed) -> Trained:
    """`ProgressiveGANTrainer.train` of the clone."""
    mends = _ready(job, "h5py")
    module = importlib.import_module("models.trainer.progressive_gan_trainer")
    importlib.import_module("models.networks.progressive_conv_net").GNet.module = property(lambda self: self)
    mends.note("GNet.module is the network itself", "updateAlpha takes the average for a wrapped one, as on a GPU")

    class Trainer(module.ProgressiveGANTrainer):  # type: ignore[name-defined,misc]
        def getDataset(self, scale: int, size: Any = None) -> range:  # noqa: N802
            return range(0)

        def getDBLoader(self, scale: int) -> Loader:  # noqa: N802
            labels = torch.zeros(job.minibatch, 1, dtype=torch.long)
            return Loader(self.modelConfig.maxIterAtScale[scale], lambda: (feed.take(4 * 2**scale), labels))

    shape, defaults = job.config.g, Trainer._defaultConfig
    stages = len(shape.resolutions)
    whose = Growth.of(job.config)
    if job.own:
        jumps = (a * b for a, b in zip(defaults.alphaNJumps, defaults.alphaSizeJumps, strict=False))
        whose = Growth(tuple(defaults.maxIterAtScale[:stages]), tuple(jumps)[:stages])
    iterations, fades = [EVER**2] * stages, [0] * stages
    if job.seconds:
        growth, _ = job.growth(whose)
        iterations, fades = ([round(n / job.minibatch) for n in counts] for counts in (growth.nimg, growth.fade))
        iterations[-1] *= EVER
    config = {
        "depthScales": [shape.fmaps_at(r) for r in shape.resolutions],
        "dimLatentVector": shape.z_dim,
        "miniBatchSize": job.minibatch,
        "maxIterAtScale": [max(1, n) for n in iterations],
        "alphaNJumps": fades,
        "alphaSizeJumps": [1] * stages,
    }
    if not job.own:
        config["baseLearningRate"] = job.config.schedule.g_lr[4]
    trainer = Trainer("", useGPU=False, config=config)
    if not job.seconds:
        for maps in config["depthScales"][1:]:
            trainer.model.addScale(maps)
        trainer.startScale = stages - 1
    with suppress(TimeIsUp):
        trainer.train()
    model = trainer.model
    settings = {
        "lr": trainer.modelConfig.baseLearningRate,
        "average": "0.999, begun anew at every scale; no option",
        "iterations": iterations[:-1],
        "of which fading": fades,
    }
    about = _about(job, feed.nimg, model.netG, model.netD, mends, "its moving average", settings)

    def draw(count: int) -> np.ndarray:
        images = model.test(model.buildNoiseData(count)[0], getAvG=True)
        while images.shape[-1] < shape.resolution:  # it did not come to its last scale
            images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        # Clipped and truncated, as its visualizer does it by way of torchvision.
        return ((images.clamp(-1, 1) + 1) / 2 * 255).byte().numpy()

    return Trained(draw, about)


def _about(
    job: Job, nimg: int, g: torch.nn.Module, d: torch.nn.Module, mends: Mends, drawn: str, settings: dict[str, Any]
) -> dict[str, Any]:
    return {
        "nimg": nimg,
        "precision": "fp32",
        "parameters": {"g": parameter_count(g), "d": parameter_count(d)},
        "drawn_from": drawn,
        "settings": settings,
        "mends": mends.done,
    }


@dataclass(frozen=True)
class Peer:
    """files: what is read of a clone, the first tells which peer it is."""

    url: str
    files: tuple[str, ...]
    train: Callable[[Job, Feed], Trained]


PEERS = {
    "akanimax/pro_gan_pytorch": Peer(
        "https://github.com/akanimax/pro_gan_pytorch",
        (
            "pro_gan_pytorch/gan.py",
            *(f"pro_gan_pytorch/{name}.py" for name in ("custom_layers", "losses", "modules", "networks", "utils")),
            "pro_gan_pytorch_scripts/train.py",
        ),
        train_akanimax,
    ),
    "facebookresearch/pytorch_GAN_zoo": Peer(
        "https://github.com/facebookresearch/pytorch_GAN_zoo",
        (
            "models/trainer/progressive_gan_trainer.py",
            *(f"models/{name}.py" for name in ("progressive_gan", "base_GAN", "networks/progressive_conv_net")),
            "models/trainer/standard_configurations/pgan_config.py",
        ),
        train_zoo,
    ),
}


def recognise(folder: Path) -> str:
    """Which peer a folder is a clone of; raises DataError when it is none, or when a file is missing."""
    for name, peer in PEERS.items():
        if (folder / peer.files[0]).is_file():
            missing = [file for file in peer.files if not (folder / file).is_file()]
            if missing:
                raise DataError(f"--peer: {folder} is a clone of {name} that lacks {missing[0]}; clone it anew")
            return name
    raise DataError(f"--peer: {folder} is no clone of {' or '.join(PEERS)}; give the folder that git clone made")


def commit(folder: Path) -> str:
    """The commit of a clone, or what there is instead."""
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"

"""What tests of small archives share: reading a data set back, and being refused in one sentence."""

import numpy as np
import pytest

from progan.data.create import create
from progan.data.source import Source
from progan.data.store.pyramid import ImagePyramid
from progan.support.errors import DataError
from tests.attack.damage import bounded


def everything(data: ImagePyramid) -> np.ndarray:
    """Every image at full resolution: uint8 [N, C, R, R]."""
    return data.read(np.arange(len(data)), data.resolution)


def classes(data: ImagePyramid) -> list[int]:
    """The class index of every image."""
    return data.read_labels(np.arange(len(data))).argmax(axis=1).tolist()


def refused(source: Source) -> str:
    """The one sentence with which `create` refuses, leaving nothing behind."""
    with bounded(), pytest.raises(DataError) as caught:
        create(source, quiet=True)
    message = str(caught.value)
    assert "\n" not in message
    assert not source.out.exists()
    assert not list(source.out.parent.glob("*.partial-*"))
    return message

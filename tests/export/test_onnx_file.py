"""ONNX: a file that ONNX Runtime computes as PyTorch does, at every output, for every variant of the network."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from progan.export.onnx_file import write_onnx
from progan.export.plan import blend, plan
from progan.networks import Generator
from progan.studies.ablation.rows import ROWS, SCALES
from progan.studies.rows import row_config
from progan.support.errors import ConfigError
from tests.export.test_plan import VARIANTS, inputs, trained

runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
pytest.importorskip("onnx", reason="pip install 'progan[onnx]'")

ABOUT = {"nimg": 5, "resolution": 32, "alpha": 0.5, "data": {"source": {"license": "CC0"}}}


def assert_equal_at_every_output(g: Generator, out: Path) -> None:
    write_onnx(g, ABOUT, out)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    assert names == [f"rgb{resolution}" for resolution in g.config.resolutions]
    p = plan(g)
    for count in (1, 3):  # the batch is dynamic
        z, labels = inputs(g, count)
        feed = {"z": z.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        values = [torch.from_numpy(value) for value in session.run(names, feed)]
        outputs = dict(zip(g.config.resolutions, values, strict=True))
        for resolution in g.config.resolutions:
            for alpha in (0.5, 1.0):
                expected = g(z, labels, resolution=resolution, alpha=alpha)
                assert expected.std() > 0.02
                assert (blend(p, outputs, resolution, alpha) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_onnx_runtime_computes_what_the_network_does(fields: dict[str, Any], tmp_path: Path) -> None:
    assert_equal_at_every_output(trained(**fields), tmp_path / "g.onnx")


@pytest.mark.parametrize("name", sorted({row.name for row in ROWS}))
def test_it_does_for_every_row_of_the_ablation(name: str, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == name)
    torch.manual_seed(0)
    g = Generator(row_config(row, "small", SCALES, ROWS).g).eval().requires_grad_(False)
    assert_equal_at_every_output(g, tmp_path / "g.onnx")


def test_the_metadata_says_what_it_is(tmp_path: Path) -> None:
    g = trained(output="tanh")
    write_onnx(g, ABOUT, tmp_path / "g.onnx")
    session = runtime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["config"]["fmap_max"] == 24
    assert facts["tanh"] is True
    assert facts["data"]["source"]["license"] == "CC0"
    assert (facts["resolution"], facts["alpha"], facts["nimg"]) == (32, 0.5, 5)
    assert np.array_equal(session.get_inputs()[0].shape[1:], [g.config.z_dim])


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "g.onnx"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"g\.onnx is there already"):
        write_onnx(trained(), ABOUT, out)
    assert out.read_text() == "mine"
    monkeypatch.setattr("progan.export.onnx_file.MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match="GB of weights do not fit"):
        write_onnx(trained(), ABOUT, tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"onnx is not installed .* pip install 'progan\[onnx\]'"):
        write_onnx(trained(), ABOUT, tmp_path / "other.onnx")
    assert list(tmp_path.iterdir()) == [out]

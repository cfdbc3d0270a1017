"""Official snapshots are read whatever wrote them; everything else is refused in one sentence, and nothing runs."""

import builtins
import collections
import contextlib
import io
import os
import pickle
import pickletools
import struct
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from progan.interop.official import import_array, official_name, read
from progan.networks import Discriminator, Generator
from progan.support.errors import RunError

DATA = Path(__file__).parents[1] / "golden"


class Network:
    """What a snapshot pickles, under the official name."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.__dict__.update(state or {})


Network.__module__ = "tfutil"
Edit = Callable[[list[dict[str, Any]]], None]


@pytest.fixture(autouse=True)
def _tfutil(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process write tfutil.Network, and show that reading never needs it."""
    module = types.ModuleType("tfutil")
    module.Network = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tfutil", module)
    yield
    assert sys.modules["tfutil"] is module


@pytest.fixture
def states() -> list[dict[str, Any]]:
    """The states of G, D and Gs of a small snapshot, to be spoiled; variables as dictionaries."""
    with (DATA / "official_d.pkl").open("rb") as file:
        networks = pickle.load(file)  # our own file, and tfutil.Network is the class above
    return [vars(network) | {"variables": dict(network.variables)} for network in networks]


def dumps(states: list[dict[str, Any]], protocol: int = 4) -> bytes:
    networks = [Network(state | {"variables": list(state["variables"].items())}) for state in states]
    return pickle.dumps(tuple(networks), protocol)


def refuse(tmp_path: Path, content: bytes) -> str:
    """The one sentence with which these bytes are refused."""
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def same_networks(path: Path) -> bool:
    """Whether a file holds the networks of the small snapshot."""
    ours, wanted = read(path), read(DATA / "official_d.pkl")
    for name in ("g", "d", "gs"):
        a, b = getattr(ours, name), getattr(wanted, name)
        if a.config != b.config or not all(
            torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True)
        ):
            return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Honest files


@pytest.mark.parametrize("name", "acd")
def test_every_variable_arrives(name: str) -> None:
    snapshot = read(DATA / f"official_{name}.pkl")
    with (DATA / f"official_{name}.pkl").open("rb") as file:
        networks = pickle.load(file)
    pairs: list[tuple[Generator | Discriminator, Any]] = list(
        zip((snapshot.g, snapshot.d, snapshot.gs), networks, strict=True)
    )
    for ours, official in pairs:
        variables = dict(official.variables)
        names = {official_name(parameter, ours): value for parameter, value in ours.named_parameters()}
        assert names.keys() == variables.keys() - {"lod"}
        for variable, value in names.items():
            assert value.dtype == torch.float32
            assert value.requires_grad
            assert np.array_equal(np.sort(value.detach().numpy(), None), np.sort(variables[variable], None))


def test_configurations_are_those_of_the_files() -> None:
    a, c, d = (read(DATA / f"official_{name}.pkl") for name in "acd")
    for snapshot in (a, c):
        config = snapshot.g.config
        assert (config.resolution, config.fmap_base, config.fmap_max, config.z_dim) == (32, 256, 32, 32)
        assert config.equalized
        assert config.norm == "pixel"
        assert snapshot.d.config.stddev_group == 4
    assert (a.g.config.fused_scaling, c.g.config.fused_scaling) == (True, False)
    assert (a.d.config.channels, a.d.config.label_dim, c.d.config.channels, c.d.config.label_dim) == (3, 0, 1, 3)
    assert (d.g.config.equalized, d.g.config.norm, d.d.config.stddev_group) == (False, "none", 0)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, states: list[dict[str, Any]], protocol: int) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumps(states, protocol))
    assert same_networks(path)


@pytest.mark.parametrize("protocol", [2, 5])
def test_fortran_and_big_endian_arrays(tmp_path: Path, states: list[dict[str, Any]], protocol: int) -> None:
    for state in states:
        for i, (name, value) in enumerate(state["variables"].items()):
            state["variables"][name] = np.asfortranarray(value) if i % 2 else np.asarray(value).astype(">f8")
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumps(states, protocol))
    assert same_networks(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_old_and_new_numpy_name_their_modules_differently(
    tmp_path: Path, states: list[dict[str, Any]], protocol: int
) -> None:
    content = dumps(states, protocol)
    old, new = respelled(content, b"numpy._core.", b"numpy.core."), respelled(content, b"numpy.core.", b"numpy._core.")
    assert b"numpy._core." not in old
    assert b"numpy.core." not in new
    for spelled in (old, new):
        path = tmp_path / "snapshot.pkl"
        path.write_bytes(spelled)
        assert same_networks(path)


def respelled(content: bytes, old: bytes, new: bytes) -> bytes:
    """The same pickle with other module names: without frames, whose lengths would no longer be right."""
    steps = list(pickletools.genops(content))
    ends = [step[2] for step in steps[1:]] + [len(content)]
    parts = []
    for (opcode, _, start), end in zip(steps, ends, strict=True):
        part = content[start:end]
        if opcode.name == "GLOBAL":
            part = part.replace(old, new)
        elif opcode.name == "SHORT_BINUNICODE" and part[2:].startswith(old):
            text = part[2:].replace(old, new)
            part = part[:1] + bytes([len(text)]) + text
        if opcode.name != "FRAME":
            parts.append(part)
    return b"".join(parts)


def test_python_2_wrote_its_bytes_as_strings(tmp_path: Path, states: list[dict[str, Any]]) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(python_2(states))
    assert same_networks(path)


class Python2(pickle._Pickler):
    """Writes every string as Python 2 did: as bytes."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)
    write: Callable[[bytes], Any]
    memoize: Callable[[Any], None]

    def save_string(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def python_2(states: list[dict[str, Any]]) -> bytes:
    """A snapshot as Python 2 and its NumPy spelled it: protocol 2, every string a byte string."""
    buffer = io.BytesIO()
    networks = [Network(state | {"variables": list(state["variables"].items())}) for state in states]
    Python2(buffer, 2).dump(tuple(networks))
    content = buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")
    assert b"_codecs" not in content
    return content


def test_reading_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read(DATA / "official_d.pkl")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("lod", [0.0, 1.6, 2.0])
def test_lod_is_read_from_g(tmp_path: Path, states: list[dict[str, Any]], lod: float) -> None:
    states[0]["variables"]["lod"] = np.float32(lod)
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumps(states))
    assert read(path).lod == np.float32(lod)


def test_shapes_decide_where_settings_are_silent(tmp_path: Path) -> None:
    for name in "acd":
        with (DATA / f"official_{name}.pkl").open("rb") as file:
            networks = pickle.load(file)
        for network in networks:
            kept = {"fmap_base", "fmap_max", "use_wscale", "use_pixelnorm"}
            network.static_kwargs = {key: value for key, value in network.static_kwargs.items() if key in kept}
        path = tmp_path / "snapshot.pkl"
        path.write_bytes(pickle.dumps(networks))
        ours, wanted = read(path), read(DATA / f"official_{name}.pkl")
        assert (ours.g.config, ours.d.config, ours.gs.config) == (wanted.g.config, wanted.d.config, wanted.gs.config)


def test_settings_that_change_no_result_are_ignored(tmp_path: Path, states: list[dict[str, Any]]) -> None:
    for state in states:
        state["static_kwargs"] |= {
            "dtype": "float32",
            "structure": "linear",
            "is_template_graph": True,
            "fmap_decay": 1,
        }
    states[0]["static_kwargs"] |= {"latent_size": None, "normalize_latents": True, "resolution": np.int64(16)}
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumps(states))
    assert same_networks(path)


def test_source_code_in_the_file_stays_text(tmp_path: Path, states: list[dict[str, Any]]) -> None:
    marker = tmp_path / "ran"
    for state in states:
        state["build_module_src"] = f"open({str(marker)!r}, 'w')"
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumps(states))
    assert same_networks(path)
    assert not marker.exists()


def test_arrays_turn_into_our_layout() -> None:
    conv = np.arange(3 * 3 * 2 * 4).reshape(3, 3, 2, 4)
    assert import_array("8x8/Conv0/weight", conv)[3, 1, 0, 2] == conv[0, 2, 1, 3]
    assert import_array("8x8/Conv0_up/weight", conv)[1, 3, 0, 2] == conv[2, 0, 1, 3]
    assert import_array("4x4/Dense/weight", conv[0, 0])[3, 1] == conv[0, 0, 1, 3]


# ---------------------------------------------------------------------------------------------------------------------
# Hostile files


class Call:
    """Pickles as a call, which an ordinary unpickler makes."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


class Evil(np.ndarray):
    """A class that is not NumPy's own."""


Evil.__module__, Evil.__qualname__ = "tfutil", "Evil"
_reconstruct, _frombuffer = np.zeros(1).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0]
FLOAT = np.dtype("f4")


def payloads(marker: Path) -> dict[str, tuple[Any, str]]:
    """Calls that would leave a marker file, each with the name it must be refused by."""
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    return {
        "os.system": (Call(os.system, touch), "posix.system"),
        "eval": (Call(builtins.eval, code), "builtins.eval"),
        "exec": (Call(builtins.exec, code), "builtins.exec"),
        "open": (Call(io.open, str(marker), "w"), "io.open"),
        "getattr": (Call(getattr, Call(__import__, "os"), "system"), "builtins.getattr"),
        "torch": (Call(torch.load, str(marker)), "torch.serialization.load"),
        "ordinary class": (collections.Counter("a"), "collections.Counter"),
        "as an argument": (Call(_reconstruct, Call(os.system, touch), (0,), b"b"), "posix.system"),
        "as a dtype": (Call(np.dtype, Call(os.system, touch)), "posix.system"),
        "as a state": (Call(Network, state={"a": [({"b": Call(os.system, touch)},)]}), "posix.system"),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", payloads(Path("x")))
@pytest.mark.parametrize("place", ["whole", "setting", "variable"])
def test_other_names_are_refused_and_nothing_runs(
    tmp_path: Path, states: list[dict[str, Any]], name: str, place: str, protocol: int
) -> None:
    marker = tmp_path / "ran"
    payload, asked = payloads(marker)[name]
    if place == "setting":
        states[1]["static_kwargs"]["structure"] = payload
    if place == "variable":
        states[2]["variables"]["4x4/Conv/bias"] = payload
    content = pickle.dumps(payload, protocol) if place == "whole" else dumps(states, protocol)
    message = refuse(tmp_path, content)
    assert asked.replace("builtins", "__builtin__" if protocol == 2 else "builtins") in message
    assert "nothing in the file was executed" in message
    assert not marker.exists()


def test_the_payloads_would_run(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "exec", "open", "as an argument", "as a state"):
        marker = tmp_path / name.replace(" ", "-")
        content = pickle.dumps(payloads(marker)[name][0])
        with contextlib.suppress(Exception):  # after the deed
            pickle.loads(content)
        assert marker.exists()


def test_instances_and_extensions_are_calls_too(tmp_path: Path) -> None:
    assert "posix.system" in refuse(tmp_path, b"\x80\x02(S'id'\niposix\nsystem\n.")  # INST
    assert "damaged" in refuse(tmp_path, b"\x80\x02\x82\x01.")  # EXT1, unregistered
    assert "damaged" in refuse(tmp_path, b"\x80\x02Pname\n.")  # PERSID


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Call(_reconstruct, Network, (0,), b"b", state=(1, (1,), FLOAT, False, b"1234")), "class tfutil.Network"),
        (Call(_reconstruct, np.dtype, (0,), b"b", state=(1, (1,), FLOAT, False, b"1234")), "class numpy.dtype"),
        (Call(_reconstruct, "os.system", (0,), b"b", state=(1, (1,), FLOAT, False, b"1234")), "class 'os.system'"),
        (Call(_reconstruct, np.ndarray, (0,), b"b"), "not an array"),
        (np.array([None, "x"], dtype=object), "dtype 'O8'"),
        (np.array(["text"]), "dtype 'U4'"),
        (np.zeros(2, dtype=[("a", "f4")]), "dtype 'V4'"),
        (Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (2,), FLOAT, False, b"1234")), "do not fit"),
        (Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (-1,), FLOAT, False, b"1234")), "do not fit"),
        (Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), FLOAT, False, [b"1234"])), "do not fit"),
        (Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), FLOAT, False, "123\u20ac")), "do not fit"),
        (Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), "f4", False, b"1234")), "no dtype"),
        (Call(_frombuffer, b"1234", FLOAT, (1,), "K"), "do not fit"),
        (Call(_frombuffer, b"1234", FLOAT, 1, "C"), "do not fit"),
        (Call(_frombuffer, b"1234"), "not an array"),
        (3.0, "not an array"),
    ],
)
def test_arrays_that_are_not_plain_numbers(
    tmp_path: Path, states: list[dict[str, Any]], value: Any, words: str
) -> None:
    states[1]["variables"]["4x4/Conv/bias"] = value
    message = refuse(tmp_path, dumps(states))
    assert words in message
    assert "4x4/Conv/bias" in message or "refused" in message


def test_subclasses_of_arrays_are_refused_by_name(tmp_path: Path, states: list[dict[str, Any]]) -> None:
    sys.modules["tfutil"].Evil = Evil  # type: ignore[attr-defined]
    for value, name in (
        (np.zeros(16, "f4").view(Evil), "tfutil.Evil"),
        (np.rec.array([(1.0,)], formats="f4"), "numpy.rec"),
    ):
        states[1]["variables"]["4x4/Conv/bias"] = value
        assert name in refuse(tmp_path, dumps(states))


# ---------------------------------------------------------------------------------------------------------------------
# Files that are something else


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.pkl: there is no such file"):
        read(tmp_path / "none.pkl")
    with pytest.raises(RunError, match="cannot be read"):
        read(tmp_path)


def test_text_zip_and_torch_files(tmp_path: Path) -> None:
    assert "no pickle" in refuse(tmp_path, b"<!DOCTYPE html>\n<title>Quota exceeded</title>\n")
    assert "no pickle" in refuse(tmp_path, b"")
    assert "no pickle" in refuse(tmp_path, pickle.dumps((1, 2, 3), 0))
    torch.save({"g": torch.zeros(1)}, tmp_path / "new.pt")
    assert "zip archive" in refuse(tmp_path, (tmp_path / "new.pt").read_bytes())
    torch.save({"g": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "no tuple" in refuse(tmp_path, (tmp_path / "old.pt").read_bytes())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_pickles(tmp_path: Path, states: list[dict[str, Any]], protocol: int) -> None:
    content = dumps(states, protocol)
    for length in (1, 2, 20, 500, len(content) // 2, len(content) - 1):
        assert "cut short" in refuse(tmp_path, content[:length])


@pytest.mark.parametrize("value", [1, {"G": 1}, (1, 2, 3), [], (Network({}), Network({})), "text"])
def test_pickles_of_something_else(tmp_path: Path, value: Any) -> None:
    assert "no tuple of the three networks" in refuse(tmp_path, pickle.dumps(value))


def test_networks_in_another_order(tmp_path: Path, states: list[dict[str, Any]]) -> None:
    assert "G was built by 'D_paper'" in refuse(tmp_path, dumps([states[1], states[0], states[2]]))


@pytest.mark.parametrize("value", [None, {"variables": 3}, {"variables": [("lod",)]}, {"static_kwargs": 3}, [1]])
def test_networks_without_a_state(tmp_path: Path, value: Any) -> None:
    odd = Call(Network, state={"variables": []} | value if isinstance(value, dict) else value)
    message = refuse(tmp_path, pickle.dumps((odd, odd, odd)))
    assert "variable" in message or "static_kwargs" in message


# ---------------------------------------------------------------------------------------------------------------------
# Networks that do not fit


def spoil_missing(states: list[dict[str, Any]]) -> None:
    del states[1]["variables"]["8x8/Conv0/bias"]


def spoil_unknown(states: list[dict[str, Any]]) -> None:
    states[0]["variables"]["8x8/Conv2/bias"] = np.zeros(16, "f4")


def spoil_shape(states: list[dict[str, Any]]) -> None:
    states[2]["variables"]["8x8/Conv1/weight"] = np.zeros((3, 3, 16, 15), "f4")


def spoil_dimensions(states: list[dict[str, Any]]) -> None:
    states[1]["variables"]["4x4/Conv/weight"] = np.zeros((3, 3), "f4")


def spoil_name(states: list[dict[str, Any]]) -> None:
    states[0]["variables"]["\x1b[2J"] = np.zeros(1, "f4")


def spoil_no_lod(states: list[dict[str, Any]]) -> None:
    del states[0]["variables"]["lod"]


def spoil_lod(states: list[dict[str, Any]]) -> None:
    states[0]["variables"]["lod"] = np.float32(2.5)


def spoil_nan_lod(states: list[dict[str, Any]]) -> None:
    states[0]["variables"]["lod"] = np.float32("nan")


def spoil_stddev(states: list[dict[str, Any]]) -> None:
    states[1]["static_kwargs"]["mbstd_group_size"] = 4


def spoil_fused(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"]["fused_scale"] = False


def spoil_latent(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"]["latent_size"] = 512


def spoil_labels(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"] |= {"label_size": 1, "latent_size": 15}


def spoil_resolution(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"]["resolution"] = 24


def spoil_number(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"]["fmap_max"] = 10**5000


def spoil_switch(states: list[dict[str, Any]]) -> None:
    states[0]["static_kwargs"]["use_wscale"] = "yes"


def spoil_average(states: list[dict[str, Any]]) -> None:
    states[2]["static_kwargs"]["use_pixelnorm"] = True


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_missing, "D has no variable 8x8/Conv0/bias (1 of 20 are missing)"),
        (spoil_unknown, "G has a variable 8x8/Conv2/bias, which"),
        (spoil_shape, "Gs: 8x8/Conv1/weight has shape [3, 3, 16, 15], which does not fit blocks.8.conv1.weight"),
        (spoil_dimensions, "D: 4x4/Conv/weight has shape [3, 3]; it should have 4 dimensions"),
        (spoil_name, "G: its variables are not pairs"),
        (spoil_no_lod, "G has no variable lod"),
        (spoil_lod, "G: lod is 2.5; a network of 16x16 has 0 to 2"),
        (spoil_nan_lod, "G: lod is nan"),
        (spoil_stddev, "D: 4x4/Conv/weight has shape [3, 3, 16, 16], which does not fit head.conv.weight"),
        (spoil_fused, "G has no variable 8x8/Conv0/weight"),
        (spoil_latent, "G: 4x4/Dense/weight has shape [16, 256], which does not fit blocks.4.dense.weight"),
        (spoil_labels, "disagree on label_dim: 1, 0, 0"),
        (spoil_resolution, "24 is not a power of two"),
        (spoil_number, "G: fmap_max is no whole number"),
        (spoil_switch, "G: use_wscale is neither True nor False"),
        (spoil_average, "Gs is not the moving average of G"),
    ],
)
def test_networks_that_contradict_themselves(
    tmp_path: Path, states: list[dict[str, Any]], spoil: Edit, words: str
) -> None:
    spoil(states)
    assert words in refuse(tmp_path, dumps(states))


@pytest.mark.parametrize(
    ("network", "name", "value"),
    [
        (0, "normalize_latents", False),
        (0, "use_leakyrelu", False),
        (0, "pixelnorm_epsilon", 1e-4),
        (0, "tanh_at_end", True),
        (0, "fmap_decay", 0.5),
        (1, "fmap_decay", 2.0),
        (0, "style_mixing_prob", 0.9),
        (1, "use_batchnorm", True),
        (1, "latent_size", 16),  # a setting of G
    ],
)
def test_settings_that_this_project_does_not_have(
    tmp_path: Path, states: list[dict[str, Any]], network: int, name: str, value: Any
) -> None:
    states[network]["static_kwargs"][name] = value
    message = refuse(tmp_path, dumps(states))
    assert f": {'GD'[network]}" in message
    assert name in message

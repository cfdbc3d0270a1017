"""Pickles are read as data: whatever a file asks for, nothing of it is called and no name but those allowed gets by."""

import copyreg
import io
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from progan.support.errors import DataError, RunError
from progan.support.inert_pickle import Call, InertPickle, as_array

PLAIN = InertPickle(error=DataError, refused="is too much", damaged="is broken ({})", strings="bytes")
MORE = InertPickle(
    error=RunError,
    refused="is too much",
    damaged="is broken ({})",
    strings="latin1",
    also=("some.Model", "numpy.core.multiarray.scalar", "numpy.core.numeric._frombuffer"),
)
KINDS = pytest.mark.parametrize("kind", [PLAIN, MORE], ids=["plain", "more"])
DTYPES = ("u1", "f4", "f8", "b1")


def load(content: bytes, kind: InertPickle = PLAIN) -> Any:
    return kind.load(io.BytesIO(content), "here")


def refusal(content: bytes, kind: InertPickle = PLAIN) -> str:
    with pytest.raises(kind.error, match=r"^here: ") as caught:
        load(content, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("here: ")


# ---------------------------------------------------------------------------------------------------------------------
# Names


@KINDS
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "refused, for it asks for 'builtins.eval', which is too much"),
        (b"cnumpy\nload\n(S'x'\ntR.", "refused, for it asks for 'numpy.load', which is too much"),
        (b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.", "'numpy.core.multiarray.fromfile'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "'numpy.ndarray.__class__'"),  # a path of attributes
        (b"cnumpy\nndarray\nq\x00(cos\nsystem\ntb.", "'os.system'"),
        (b"(iposix\nsystem\n.", "'posix.system'"),
        (b"\x80\x02\x82\x01.", "is broken (ValueError)"),  # the registry of extensions
        (b"Pan id\n.", "is broken (UnpicklingError)"),
    ],
)
def test_nothing_else_is_admitted(content: bytes, words: str, kind: InertPickle) -> None:
    assert words in refusal(content, kind)


def test_only_one_kind_admits_more() -> None:
    content = b"csome\nModel\n(I1\ntR."
    assert "'some.Model'" in refusal(content, PLAIN)
    call = load(content, MORE)
    assert (call.name, call.args, call.state) == ("some.Model", (1,), None)


def test_a_long_name_is_cut_short_and_spelled_in_ascii() -> None:
    message = refusal("c\x1b\u20ac{}\nx\n.".format("y" * 1000).encode())
    assert "'\\x1b\\u20acyyy" in message
    assert len(message) < 300


@KINDS
@pytest.mark.parametrize(
    "form",
    [
        b"%bI4\n\x85R.",  # a function called
        b"%bI4\n\x85\x81.",  # an object of protocol 2
        b"(%bI4\no.",  # an object of protocol 1
        b"(I4\ni%b.",  # an object of protocol 0
    ],
    ids=["reduce", "newobj", "obj", "inst"],
)
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize(
    ("module", "name"),
    [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("numpy.core.multiarray", "_reconstruct")],
)
def test_every_form_of_a_call_is_written_down(
    form: bytes, core: str, module: str, name: str, kind: InertPickle
) -> None:
    asked = f"{module.replace('numpy.core', core)}\n{name}\n".encode()
    call = load(form % (asked if form.startswith(b"(I") else b"c" + asked), kind)
    assert isinstance(call, Call)
    assert (call.name, call.args, call.state) == (f"{module}.{name}", (4,), None)


def test_admitted_names_are_not_called() -> None:
    huge = b"\x80\x02cnumpy\nndarray\n\x8a\x08\0\0\0\0\0\1\0\0\x85R."  # ndarray(2 ** 40)
    with pytest.raises(ValueError, match="is not an array of numbers"):
        as_array(load(huge), DTYPES)


@KINDS
@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n}S'name'\nS'x'\nsb.",  # BUILD of a name
        b"cnumpy\nndarray\nN}S'name'\nS'x'\ns\x86b.",
        b"cnumpy\nndarray\n(I1\ntRI1\n\x85R.",  # a call of what a call gave
        b"cnumpy\nndarray\n(I1\ntRI1\n\x85\x81.",
        b"\x80\x04cnumpy\nndarray\n)}\x8c\x04nameI1\ns\x92.",  # an object made with keywords
    ],
)
def test_names_and_calls_have_nothing_to_set_or_to_call(content: bytes, kind: InertPickle) -> None:
    assert "is broken (TypeError)" in refusal(content, kind)
    assert load(b"cnumpy\nndarray\n.", kind).name == "numpy.ndarray"


@pytest.fixture
def extension() -> Iterator[int]:
    """An extension code for os.system, which this process has already looked up once."""
    code = 0x7A
    copyreg.add_extension("os", "system", code)
    try:
        assert pickle.loads(b"\x80\x02\x82\x7a.") is os.system
        yield code
    finally:
        copyreg.remove_extension("os", "system", code)


@KINDS
def test_a_known_extension_code_does_not_get_by(extension: int, kind: InertPickle, tmp_path: Path) -> None:
    touch = f"touch {tmp_path / 'ran'}".encode()
    content = b"\x80\x02\x82%c(X%c\0\0\0%btR." % (extension, len(touch), touch)
    assert "is broken (ValueError)" in refusal(content, kind)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)  # it does run when nobody looks
    assert (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Values


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@KINDS
def test_plain_values_are_what_they_were(protocol: int, kind: InertPickle) -> None:
    value = {"a": [1, 2.5, None, True], "b": ("text", {1: -1}), 7: 10**30}
    assert load(pickle.dumps(value, protocol), kind) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@KINDS
def test_bytes_can_be_keys(protocol: int, kind: InertPickle) -> None:
    value = {b"data": b"\x00\xff", b"labels": [1]}
    assert load(pickle.dumps(value, protocol), kind) == value


def test_no_other_codec_is_run() -> None:
    call = load(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    assert (call.name, call.args) == ("_codecs.encode", ("x", "rot13"))


def test_strings_of_python_2() -> None:
    content = b"\x80\x02U\x02\x00\xff."
    assert load(content, PLAIN) == b"\x00\xff"
    assert load(content, MORE) == "\x00\xff"


@KINDS
@pytest.mark.parametrize("code", [pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8])
def test_bytes_that_are_only_claimed_cost_no_memory(kind: InertPickle, code: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x05" + code + (2**33).to_bytes(8, "little") + b"abc")
    tracemalloc.start()
    try:
        with path.open("rb") as file, pytest.raises(kind.error, match="EOFError"):
            kind.load(file, "here")
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@KINDS
def test_a_memo_number_costs_no_memory(kind: InertPickle) -> None:
    tracemalloc.start()
    try:
        assert load(b"]r\0\0\0\4.", kind) == []  # remembered as number 2 ** 26
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@KINDS
def test_every_truncation_is_named(kind: InertPickle) -> None:
    whole = pickle.dumps({"data": np.arange(6, dtype="u1").reshape(2, 3)}, 2)
    for length in range(len(whole)):
        assert refusal(whole[:length], kind).startswith(("is broken (", "refused, "))  # a name may be cut short too


def test_a_file_that_cannot_be_read_is_not_called_broken() -> None:
    class Unreadable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        PLAIN.load(Unreadable(b"x"), "here")


# ---------------------------------------------------------------------------------------------------------------------
# Arrays


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "<f8", "?"])
def test_arrays_are_what_they_were(protocol: int, dtype: str) -> None:
    whole = np.random.default_rng(0).integers(0, 2, (2, 3, 4)).astype(dtype)
    for wanted in (whole, np.asfortranarray(whole), whole[0, 0], whole[0, 0, :1]):
        ours = as_array(load(pickle.dumps(wanted, protocol), MORE), DTYPES)
        assert np.array_equal(ours, wanted)
        assert (ours.dtype, ours.shape) == (wanted.dtype, wanted.shape)


def test_an_array_without_numbers() -> None:
    assert as_array(load(pickle.dumps(np.zeros((0, 3), "f4"), 4)), DTYPES).shape == (0, 3)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numbers_of_numpy(protocol: int) -> None:
    number = as_array(load(pickle.dumps(np.float32(2.5), protocol), MORE), DTYPES)
    assert (number.item(), number.dtype, number.shape) == (2.5, np.float32, ())


class Asks:
    """Pickles as a call and a state for what it gives."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


reconstruct, frombuffer = np.zeros(1).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0]
U1 = np.dtype("u1")


def array(*state: Any, of: Any = np.ndarray) -> Asks:
    return Asks(reconstruct, of, (0,), b"b", state=(1, *state))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (array((2,), U1, False, b"ab", of=np.dtype), "asks for an array of class numpy.dtype; only numpy.ndarray can"),
        (array((2,), U1, False, b"ab", of="os.system"), "asks for an array of class 'os.system'; only numpy.ndarray"),
        (array((2,), U1, False, b"ab", of=Asks(np.ndarray, (0,))), "only numpy.ndarray can be read"),
        (Asks(reconstruct, np.ndarray, (0,), b"b"), "is not an array of numbers"),
        (Asks(np.ndarray, (0,), state=(1, (2,), U1, False, b"ab")), "is not an array of numbers"),
        (Asks(frombuffer, b"ab"), "is not an array of numbers"),
        (array((3,), U1, False, b"ab"), "do not fit together"),
        (array((1,), U1, False, b"ab"), "do not fit together"),
        (array((1,), np.dtype("f4"), False, b"ab"), "do not fit together"),
        (array((-1,), U1, False, b"ab"), "do not fit together"),
        (array((True,), U1, False, b"a"), "do not fit together"),
        (array((1.0,), U1, False, b"a"), "do not fit together"),
        (array(2, U1, False, b"ab"), "do not fit together"),
        (array([2], U1, False, b"ab"), "do not fit together"),
        (array((1,) * 100, U1, False, b"a"), "do not fit together"),  # NumPy has 64 dimensions
        (array((0, 2**70), U1, False, ""), "do not fit together"),
        (array((2**70,), U1, False, b"a"), "do not fit together"),
        (array((2,), U1, False, [97, 98]), "do not fit together"),
        (array((2,), U1, False, np.dtype("f4")), "do not fit together"),
        (array((2,), U1, False, "a\u20ac"), "do not fit together"),
        (Asks(frombuffer, b"ab", U1, (2,), "K"), "do not fit together"),
        (Asks(frombuffer, b"ab", U1, (2,), None), "do not fit together"),
        (array((2,), "u1", False, b"ab"), "has no dtype"),
        (array((2,), np.dtype, False, b"ab"), "has no dtype"),
        (array((2,), Asks(np.dtype, "u1"), False, b"ab"), "has the dtype 'u1'; only arrays of plain numbers"),
        (array((2,), Asks(np.dtype, "u1", state=(3, "")), False, b"ab"), "has the dtype 'u1'"),
        (array((2,), Asks(np.dtype, "u1", state=(3,)), False, b"ab"), "has the dtype 'u1'"),
        (array((2,), Asks(np.dtype, [], state=(3, "|")), False, b"ab"), r"has the dtype \[\]"),
        (np.array([None]), "has the dtype 'O8'"),
        (np.array(["a"]), "has the dtype 'U1'"),
        (np.zeros(1, [("a", "u1")]), "has the dtype 'V1'"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_no_plain_array(value: Any, words: str, protocol: int) -> None:
    note = load(pickle.dumps(value, protocol), MORE)
    with pytest.raises(ValueError, match=words):
        as_array(note, DTYPES)


def test_an_array_spelled_so_is_one_where_all_is_well() -> None:
    for value in (array((2,), U1, False, b"ab"), array((2,), U1, True, "ab"), Asks(frombuffer, b"ab", U1, (2,), "C")):
        assert as_array(load(pickle.dumps(value, 2), MORE), DTYPES).tolist() == [97, 98]


@pytest.mark.parametrize("value", [None, 3.0, b"ab", [1, 2], "text", np.zeros(2, "u1"), Call])
def test_other_values_are_no_arrays(value: Any) -> None:
    with pytest.raises(ValueError, match="is not an array of numbers"):
        as_array(value, DTYPES)


def test_only_the_dtypes_asked_for() -> None:
    value = load(pickle.dumps(np.zeros(3, "f4"), 2))
    assert as_array(value, ("f4",)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="has the dtype 'f4'; only arrays of plain numbers can be read"):
        as_array(value, ("u1", "f8"))

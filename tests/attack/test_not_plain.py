"""What is no plain file of a bounded size is never waited for and never read: one sentence, or it is passed over."""

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import progan
from tests.attack.damage import answer
from tests.attack.kinds import KINDS


def enormous(path: Path) -> None:
    """A whole one, and then a hole of 2^40 bytes, which take no room on the disk."""
    path.write_bytes(path.with_name("honest").read_bytes())
    os.truncate(path, 2**40)


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "link to itself": lambda path: path.symlink_to(path),
    "enormous file": enormous,
}


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_a_file(kind: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "attacked"
    folder.mkdir()
    attacked = KINDS[kind](folder, monkeypatch)
    attacked.path.rename(attacked.path.with_name("honest"))
    IN_PLACE[what](attacked.path)
    answer(attacked.read, folder)


READING = {"open", "read_bytes", "read_text", "load", "safe_open", "ZipFile", "File", "loadmat", "memmap", "fromfile"}
READING |= {"open_memmap", "shape_predictor", "load_dataset", "load_from_disk"}
# Ours, or of what is open already; the names say so.
OURS = (
    "ImagePyramid.open(",
    "source.open(",
    "file.open()",
    "state.load(",
    "PictureFile(",
    "picture.load()",
    "_PICKLE.load(",
)
# What may read without the gate: after it (a library that takes only a path), or files that nobody else wrote.
OTHERS = {
    "commands/view.py": {"webbrowser.open(address)"},
    "data/celebahq/detect.py": {"dlib.shape_predictor(str(file))"},  # after check_plain
    "data/pictures/tree.py": {"open_zip(self.src).open(name)"},
    "data/sources/faces.py": {"file.read_text('utf-8')"},  # of a package
    "data/sources/hdf5.py": {"h5py.File(path, 'r', rdcc_nbytes=_CHUNK_BYTES)"},  # after check_plain
    "data/sources/huggingface.py": {"datasets.load_from_disk(src)", "datasets.load_dataset(src, subset)"},  # theirs
    "data/store/partial.py": {"os.open(path, os.O_RDONLY | os.O_NONBLOCK)"},  # not read, but locked
    "data/store/pyramid.py": {  # after check_plain, and of what the gate opened
        "np.lib.format.open_memmap(path, mode='r')",
        "np.memmap(self._file, dtype, 'r', self._file.tell(), shape)",
    },
    "data/store/row_files.py": {"path.open('r+b' if path.exists() else 'w+b')"},  # what this process writes
    "export/hub.py": {"path.read_bytes()"},  # after load_network
    "export/web.py": {"resources.files('progan.export').joinpath('page', name).read_text('utf-8')"},
    "metrics/feature_networks.py": {  # after their checksums
        "torch.load(path, weights_only=True)",
        "torch.load(weights, weights_only=True)",
    },
    "studies/ablation/study.py": {"written[0].read_text()"},
    "support/device.py": {"Path('/proc/cpuinfo').read_text()"},
    "support/files.py": {"os.open(folder, os.O_RDONLY)", "Path('/proc/locks').read_text()"},
    "support/run_files.py": {"safe_open(path, framework='np')"},  # after check_plain
    "view/answers.py": {"folder.joinpath(name).read_bytes()"},  # of this package, as are those of the report
    "view/embedded.py": {"Image.open(path, formats=['PNG'])"},  # after check_plain
    "view/report.py": {
        "files.joinpath(name).read_text('utf-8')",
        "files.joinpath('view/report.html').read_text('utf-8')",
    },
    "weights.py": {"safe_open(path, framework='pt')"},  # after check_plain
}
ROOT = Path(progan.__file__).parent


def writes(call: ast.Call) -> bool:
    modes = [word.value for word in [*call.args, *(keyword.value for keyword in call.keywords)] if is_text(word)]
    return any(len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)


def is_text(word: ast.expr) -> bool:
    return isinstance(word, ast.Constant) and isinstance(word.value, str)


@pytest.mark.parametrize("name", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")))
def test_files_are_opened_by_the_gate(name: str) -> None:
    """What is opened in another way waits for pipes, fills the memory from devices, or ends in a traceback."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Call) and not writes(node):
            word, text = ast.unparse(node.func).rpartition(".")[2], ast.unparse(node)
            opened_before = node.args and ast.unparse(node.args[0]).startswith(("file", "io.BytesIO(", "open_plain("))
            if word in READING and not text.startswith(OURS) and not opened_before:
                found.add(text)
    found -= {
        text
        for text in found
        if text.startswith(("picture.load()", "tarfile.open(fileobj=", "os.open(os.devnull", "_Unpickler("))
    }
    if name != "support/plain_files.py":
        assert found == OTHERS.get(name, set()), "open it by support/plain_files.py, or say in OTHERS why not"

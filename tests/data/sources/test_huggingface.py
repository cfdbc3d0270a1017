import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.source import BadImage
from progan.data.sources.huggingface import HuggingFace
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError

datasets = pytest.importorskip("datasets")


def noise(width: int = 16, height: int = 16, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def table(images: list[bytes | None], **columns) -> "datasets.Dataset":
    """A data set of encoded images; other columns are (feature, values)."""
    features = {"image": datasets.Image()} | {name: feature for name, (feature, _) in columns.items()}
    rows = {"image": [data and {"bytes": data, "path": None} for data in images]}
    rows |= {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def animals(count: int = 6) -> "datasets.Dataset":
    kinds = datasets.ClassLabel(names=["cat", "dog", "emu"])
    return table([encoded(noise(seed=i)) for i in range(count)], kind=(kinds, [i % 2 for i in range(count)]))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def src(tmp_path):
    return tmp_path / "src"


def source(src: Path | str, **options) -> HuggingFace:
    options = {"out": Path(str(src) + "-out"), "workers": 1, **options}
    return HuggingFace(src=str(src), **options)


def make(src: Path | str, **options) -> ImagePyramid:
    return create(source(src, **options), quiet=True)


def everything(data: ImagePyramid) -> np.ndarray:
    return data.read(np.arange(len(data)), data.resolution)


def written(data: "datasets.Dataset", folder: Path, how: str) -> Path:
    if how == "save_to_disk":
        data.save_to_disk(folder)
    elif how == "dictionary":
        datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(folder)
    elif how == "shards":
        data.save_to_disk(folder, num_shards=3)
    elif how == "arrow":
        data.save_to_disk(folder)
        for name in ("state.json", "dataset_info.json"):
            (folder / name).unlink()
    elif how == "parquet":
        folder.mkdir()
        for part in range(2):
            data.shard(2, part, contiguous=True).to_parquet(folder / f"train-{part:05}-of-00002.parquet")
    return folder


@pytest.mark.parametrize("how", ["save_to_disk", "dictionary", "shards", "arrow", "parquet"])
def test_every_form_on_disk_keeps_rows_pixels_and_labels(src, how):
    data = make(written(animals(), src, how), label_column="kind")
    assert np.array_equal(everything(data), np.stack([pixels_of(noise(seed=i)) for i in range(6)]))
    assert data.label_names == ["cat", "dog", "emu"]
    assert data.read_labels(np.arange(6)).argmax(1).tolist() == [0, 1, 0, 1, 0, 1]
    assert data.manifest["source"]["dataset"] == "src"
    level = box_pyramid(pixels_of(noise(seed=3)))[8]
    assert np.array_equal(data.read(np.array([3]), 8)[0], level)


def test_a_folder_of_pictures_with_classes(src):
    for index, name in enumerate(["cat/a.png", "dog/b.png", "dog/c.png"]):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        noise(seed=index).save(src / name)
    data = make(src, label_column="label")
    assert data.label_names == ["cat", "dog"]
    labels = data.read_labels(np.arange(3)).argmax(1).tolist()
    assert sorted(labels) == [0, 1, 1]
    assert np.array_equal(everything(data)[labels.index(0)], pixels_of(noise(seed=0)))


def test_workers_do_not_matter(src):
    written(animals(12), src, "parquet")
    assert make(src).hash == make(src, out=src.parent / "pooled", workers=2).hash


def test_splits(src):
    written(animals(), src, "dictionary")
    assert len(make(src, split="test")) == 1
    with pytest.raises(DataError, match="has no split valid; pass --split with one of train, test"):
        make(src, split="valid")
    named = animals()
    named._split = datasets.Split.TEST
    named.save_to_disk(src.parent / "named")
    with pytest.raises(DataError, match="has no split train; pass --split with one of test"):
        make(src.parent / "named")
    assert len(make(src.parent / "named", split="test")) == 6


def test_only_the_first_images(src):
    written(animals(), src, "save_to_disk")
    data = make(src, images=2)
    assert np.array_equal(everything(data), np.stack([pixels_of(noise(seed=i)) for i in range(2)]))
    assert len(make(src, out=src.parent / "all", images=99)) == 6


def test_resolution_by_default_is_what_the_smallest_image_fills(src):
    images = [noise(40, 40), noise(100, 70, 1), noise(3, 3)]
    table([*(encoded(image) for image in images), b"broken"]).save_to_disk(src)
    stream = source(src, crop="center", on_bad="skip").open()
    assert stream.resolution == 32
    assert stream.notes == ["resolution 32, set by the smallest image (row 0)"]
    assert [isinstance(stream.levels(job), BadImage) for job, _ in stream.jobs] == [False, False, True, True]


def test_crop_pad_and_channels_are_those_of_a_folder(src):
    table([encoded(noise(24, 16))]).save_to_disk(src)
    assert np.array_equal(
        everything(make(src, crop="center", out=src.parent / "a"))[0], pixels_of(noise(24, 16))[:, :, 4:20]
    )
    assert make(src, on_bad="fix", out=src.parent / "b").hash == ImagePyramid.open(src.parent / "a").hash
    assert make(src, pad=True, out=src.parent / "c").resolution == 16
    assert make(src, crop="center", channels=1, out=src.parent / "d").channels == 1
    with pytest.raises(DataError, match="24x16 is not square; pass --crop center or --pad"):
        make(src, resolution=16)
    with pytest.raises(DataError, match="exclude each other"):
        make(src, crop="center", pad=True)


def test_bad_rows_are_named(src):
    whole = encoded(noise())
    kinds = datasets.ClassLabel(names=["cat", "dog"])
    rows = [whole, b"not a picture", None, whole[:-300], whole, whole]
    table(rows, kind=(kinds, [0, 1, 0, 1, -1, 1])).save_to_disk(src)
    with pytest.raises(DataError, match=r"1 of 6 .*row 4: has no label in the column kind"):
        make(src, label_column="kind")
    data = make(src, label_column="kind", on_bad="skip")
    assert data.read_labels(np.arange(2)).argmax(1).tolist() == [0, 1]
    left_out = {bad["file"]: bad["reason"] for bad in data.manifest["source"]["left_out"]}
    assert sorted(left_out) == ["row 1", "row 2", "row 3", "row 4"]
    assert left_out["row 2"] == "not a picture that Pillow can read"


def test_integers_are_labels_too(src):
    table([encoded(noise(seed=i)) for i in range(4)], age=(datasets.Value("int32"), [8, 3, None, 8])).save_to_disk(src)
    data = make(src, label_column="age", on_bad="skip")
    assert data.label_names == ["3", "8"]
    assert data.read_labels(np.arange(3)).argmax(1).tolist() == [1, 0, 1]


def test_columns_must_be_told_when_they_are_not_plain(src):
    data = animals()
    data = data.add_column("name", [str(i) for i in range(6)])
    data = data.add_column("raw", [encoded(noise(seed=9))] * 6)
    data.save_to_disk(src)
    first = everything(make(src))[0]
    assert np.array_equal(first, pixels_of(noise(seed=0)))
    raw = make(src, image_column="raw", out=src.parent / "raw")
    assert np.array_equal(everything(raw)[0], pixels_of(noise(seed=9)))
    for options, message in [
        ({"image_column": "photo"}, "has no column photo; pass --image-column with one of image, kind, name, raw"),
        ({"image_column": "kind"}, "its column kind is of type ClassLabel, which holds no encoded images"),
        ({"image_column": "name", "resolution": 16}, "row 0 .0.: No such file"),
        ({"label_column": "breed"}, "has no column breed; pass --label-column with one of image, kind, name, raw"),
        ({"label_column": "name"}, "column name is of type string; --label-column takes class labels or integers"),
    ]:
        with pytest.raises(DataError, match=message):
            make(src, **{"out": src.parent / "wrong", **options})
    data.remove_columns("image").save_to_disk(src.parent / "none")
    with pytest.raises(DataError, match=r"no columns to be images; .* kind \(ClassLabel\), name \(string\), raw"):
        make(src.parent / "none")
    data.cast_column("raw", datasets.Image()).save_to_disk(src.parent / "two")
    with pytest.raises(DataError, match="declares 2 columns to be images; pass --image-column with one of its columns"):
        make(src.parent / "two")


def test_sources_that_cannot_be_loaded(tmp_path):
    (tmp_path / "file.parquet").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/train.parquet").write_bytes(b"hello")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/state.json").write_text("{}")
    (tmp_path / "rowless").mkdir()
    animals().select([]).to_parquet(tmp_path / "rowless/train.parquet")
    for name, message in {
        "file.parquet": "is a file; pass its folder",
        "missing": "no such folder, and no name that the hub allows; pass a folder or a name like",
        "empty": r"cannot be read as a data set \(.*doesn't contain any data files.*\); check",
        "bad": r"cannot be read as a data set \(.*[Pp]arquet.*\); check",
        "half": "cannot be read as a data set",
        "rowless": "corresponds to no data",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            source(tmp_path / name).open()
        assert str(caught.value).startswith(str(tmp_path / name)), name
        assert "\n" not in str(caught.value)


def test_names_on_the_hub(tmp_path, monkeypatch):
    asked = []

    def load(name, subset):
        asked.append((name, subset))
        if subset is None:
            raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['big', 'small']")
        return datasets.DatasetDict({"train": animals(), "test": animals(0)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"nor loaded from the hub \(Config name is missing. .*'small'\]\)"):
        make("someone/animals", out=tmp_path / "out")
    data = make("someone/animals", subset="small", out=tmp_path / "out")
    with pytest.raises(DataError, match="someone/animals: its split test has no rows"):
        make("someone/animals", subset="small", split="test", out=tmp_path / "none")
    assert asked[:2] == [("someone/animals", None), ("someone/animals", "small")]
    assert data.manifest["source"]["dataset"] == "someone/animals"
    assert data.manifest["source"]["subset"] == "small"


def test_the_hub_out_of_reach_is_one_sentence(tmp_path):
    with pytest.raises(
        DataError, match="someone/animals: cannot be read as a folder here, nor loaded from the hub"
    ) as e:
        source("someone/animals", out=tmp_path / "out").open()
    assert "\n" not in str(e.value)


def test_wrong_options(src, monkeypatch):
    written(animals(), src, "save_to_disk")
    for options, message in [
        ({"resolution": 48}, "48 is not a power of two"),
        ({"images": 0}, "0 images make no data set"),
        ({"subset": "big"}, "leave out --subset"),
    ]:
        with pytest.raises(DataError, match=message):
            make(src, **options)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'needs the package datasets; run: pip install "progan\[huggingface\]"'):
        source(src).open()

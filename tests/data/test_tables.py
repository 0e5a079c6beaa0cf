"""Arrays and tables: what users have is served, with the labels and splits that it states."""

import base64
import csv
import io
import json
import pickle
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from zoo.data.image_folder import ImageFolder

N = 12
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
PIXELS[:, 0, 0, 0] = np.arange(N)  # which image it is
GREY = np.ascontiguousarray(PIXELS[..., 0])
LABELS = np.arange(N) % 3


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(buffer, "PNG")
    return buffer.getvalue()


def assert_served(root, stated=LABELS, channels=3, **options) -> ImageFolder:
    """Every image is served once, as its pixels, with its label."""
    data = ImageFolder(str(root), size=8, channels=channels, **options)
    data.setup()
    seen = []
    for split in ("train", "val", "test"):
        batch = data.examples(split=split)
        for row, x in enumerate(batch["x"].numpy()):
            i = int(x[0, 0, 0])
            seen.append(i)
            wanted = PIXELS[i].transpose(2, 0, 1) if channels == 3 else GREY[i][None]
            assert np.array_equal(x, wanted)
            if stated is not None:
                assert data.classes[int(batch["y"][row])] == str(stated[i])
    assert sorted(seen) == [*range(N)]
    assert stated is not None or data.classes == []
    return data


@pytest.mark.parametrize(
    ("images", "channels"),
    [(PIXELS, 3), (PIXELS.transpose(0, 3, 1, 2), 3), (GREY, 1), (GREY[:, None], 1)],
    ids=["NHWC", "NCHW", "NHW", "N1HW"],
)
@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed"])
def test_arrays_are_served_in_every_usual_shape(tmp_path, images, channels, suffix):
    path = tmp_path / f"a.{'npy' if suffix == 'npy' else 'npz'}"
    if suffix == "npy":
        np.save(path, images)
        assert_served(path, None, channels)
        return
    save = np.savez_compressed if suffix == "compressed" else np.savez
    save(path, images=np.ascontiguousarray(images), labels=LABELS)
    assert_served(path, LABELS, channels)
    assert_served(path, None, channels, labels=False)


@pytest.mark.parametrize(
    ("pixels", "span"),
    [
        (GREY.astype(np.uint16) * 257, "0 black .. 65535 white"),
        (GREY.astype(np.int64), "0 black .. 255 white"),
        (GREY / 255, "0 black .. 1 white"),
        ((GREY / 127.5 - 1).astype(np.float32), "-1 black .. 1 white"),
        (GREY.astype(np.float32), "0 black .. 255 white"),
    ],
    ids=["uint16", "int64", "unit", "signed", "float bytes"],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_numbers_are_scaled_by_the_range_of_all_and_it_is_said(tmp_path, pixels, span, suffix):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, pixels)
    data = assert_served(path, None, 1)
    assert span in " ".join(data.found["notes"])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_row_that_is_not_finite_is_counted_and_the_range_taken_once(
    tmp_path, suffix, monkeypatch
):
    pixels = (GREY / 255).astype(np.float32)
    pixels[3, 2, 2] = np.nan
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, pixels)
    data = ImageFolder(str(path), size=8, channels=1)
    with pytest.warns(
        UserWarning, match=r"1 of 12 images .*\[3\] \(ValueError: values that are not"
    ):
        data.setup()
    assert sum(data.found["rows"].values()) == 11
    passes = []
    monkeypatch.setattr("zoo.data.pictures.arrays._ends", lambda a: passes.append(a) or (0, 1e9))
    with pytest.raises(ValueError, match="do not say what is white"):
        ImageFolder(str(path), size=8, channels=1).setup()
    assert len(passes) == 1


def test_truth_values_are_black_and_white(tmp_path):
    np.save(tmp_path / "a.npy", GREY > 99)
    data = ImageFolder(str(tmp_path / "a.npy"), size=8, channels=1)
    assert set(data.examples()["x"].unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test"),
    ],
)
def test_the_names_of_arrays_say_splits_and_labels(tmp_path, names):
    parts = [slice(0, 6), slice(6, 9), slice(9, 12)]
    arrays = {}
    for (images, labels), part in zip(
        zip(names[::2], names[1::2], strict=True), parts, strict=True
    ):
        arrays |= {images: PIXELS[part], labels: LABELS[part][:, None]}
    np.savez(tmp_path / "a.npz", **arrays, data=PIXELS)
    data = assert_served(tmp_path / "a.npz")
    assert "arrays that are not used: data" in data.found["notes"]
    assert data.found["skipped"] == {}
    assert [data.found["rows"][s] for s in ("train", "val", "test")] == [6, 3, 3]
    assert sorted(data.examples(split="test")["x"][:, 0, 0, 0].tolist()) == [9, 10, 11]


def test_arrays_of_other_names_are_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", galaxies=PIXELS, kinds=LABELS)
    with pytest.raises(ValueError, match=r"arrays galaxies, kinds; .*--data.image_column=NAME"):
        ImageFolder(str(tmp_path / "a.npz"))
    assert_served(tmp_path / "a.npz", image_column="galaxies", label_column="kinds")
    with pytest.raises(ValueError, match=r"no array 'kin'; --data.label_column is one of galaxies"):
        ImageFolder(str(tmp_path / "a.npz"), image_column="galaxies", label_column="kin")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 784), np.uint8), r"\(5, 784\)"),
        (np.full((5, 8, 8), 1e9), "do not say what is white"),
        (np.full((5, 8, 8), np.nan), "not finite"),
        (np.zeros((0, 8, 8), np.uint8), r"\(0, 8, 8\)"),
        (np.array([[["a"]]] * 5), r"<U1"),
    ],
    ids=["flat", "huge", "nan", "empty", "words"],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_no_images_are_one_line(tmp_path, array, said, suffix):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, array)
    with pytest.raises(ValueError, match=said):
        ImageFolder(str(path)).setup()


def test_pickled_objects_in_arrays_are_never_opened(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    objects = np.empty((5, 1, 1), object)
    objects[:] = Hostile()
    for suffix, save in (("npy", np.save), ("npz", np.savez)):
        save(tmp_path / f"a.{suffix}", objects)
        with pytest.raises(ValueError, match=r"object|Python"):
            ImageFolder(str(tmp_path / f"a.{suffix}")).setup()
    assert not (tmp_path / "touched").exists()


def test_an_array_that_states_more_than_it_holds_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("x.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(6400))
    with pytest.raises(ValueError, match="x is smaller than its shape"):
        ImageFolder(str(tmp_path / "a.npz"))


# -- tables ---------------------------------------------------------------------------------------
def written(folder, kind: str, image: str = "file_name", label: str | None = "label", split=False):
    """A table of paths and labels beside the images."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(N):
        (folder / "images" / f"{i}.png").write_bytes(png(i))
        row = {image: f"images/{i}.png", "comment": f"number {i}, no more"}
        if label:
            row[label] = int(LABELS[i])
        if split:
            row["split"] = ("train", "train", "train", "validation", "train", "test")[i % 6]
        rows.append(row)
    path = folder / f"index.{kind}"
    if kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


KINDS = ["csv", "tsv", "jsonl", "json", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("image", "label"), [("file_name", "label"), ("path", "target")])
def test_a_table_lists_images_and_labels(tmp_path, kind, image, label):
    assert_served(written(tmp_path / "a", kind, image, label))
    data = assert_served(tmp_path / "a" / f"index.{kind}", None, labels=False)
    assert any(f"images from {image}" in note for note in data.found["notes"])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_other_names_are_asked_for(tmp_path, kind):
    path = written(tmp_path / "a", kind, "where", "what")
    with pytest.raises(ValueError, match=r"where, comment, what; .*--data.image_column=NAME"):
        ImageFolder(str(path))
    with pytest.raises(ValueError, match=r"no column 'hwat'; --data.label_column is one of where"):
        ImageFolder(str(path), image_column="where", label_column="hwat")
    assert_served(path, image_column="where", label_column="what")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_splits_says_the_splits(tmp_path, kind):
    data = assert_served(written(tmp_path / "a", kind, split=True))
    assert data.found["rows"] == {"train": 8, "val": 2, "test": 2}
    assert sorted(data.examples(split="test")["x"][:, 0, 0, 0].tolist()) == [5, 11]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_images_that_are_listed_but_missing_are_counted(tmp_path, kind):
    path = written(tmp_path / "a", kind)
    for i in range(4):
        (tmp_path / "a" / "images" / f"{i}.png").unlink()
    data = ImageFolder(str(path), size=8)
    data.setup()
    said = data.found["skipped"][f"listed in index.{kind} but not there"]
    assert said["number"] == 4 and sum(data.found["rows"].values()) == 8
    for i in range(4, N):
        (tmp_path / "a" / "images" / f"{i}.png").unlink()
    with pytest.raises(ValueError, match=r"none of the 12 rows .*'images/0\.png'"):
        ImageFolder(str(path))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_in_a_table_is_an_image(tmp_path, kind, prefix):
    column = "image" if prefix else "image_bytes"
    cells = [prefix + base64.b64encode(png(i)).decode() for i in range(N)]
    rows = [{column: c, "label": int(y)} for c, y in zip(cells, LABELS, strict=True)]
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text(
            "\n".join(
                [f"{column},label", *(f'"{c}",{y}' for c, y in zip(cells, LABELS, strict=True))]
            )
        )
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    assert_served(path)


def features(names: list[str] | None) -> dict:
    """The schema's metadata as the datasets library writes it."""
    label = (
        {"names": names, "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    )
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    return {b"huggingface": json.dumps(info).encode()}


def cells(part=slice(0, N), names: list[str] | None = None) -> pa.Table:
    images = [{"bytes": png(i), "path": None} for i in range(N)][part]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(LABELS[part]),
        }
    )
    return table.replace_schema_metadata(features(names))


@pytest.mark.parametrize("group", [1, 5, 100])
def test_parquet_holds_images_as_bytes_and_names_its_classes(tmp_path, group):
    pq.write_table(cells(), tmp_path / "a.parquet", row_group_size=group)
    assert_served(tmp_path / "a.parquet")
    named = cells(names=["zebra", "ape", "cow", "never"])
    pq.write_table(named, tmp_path / "b.parquet", row_group_size=group)
    data = assert_served(tmp_path / "b.parquet", np.array(["zebra", "ape", "cow"])[LABELS])
    assert data.classes == ["zebra", "ape", "cow", "never"]


def test_parquet_holds_plain_bytes_too(tmp_path):
    table = pa.table({"bytes": [png(i) for i in range(N)], "class": [f"k{y}" for y in LABELS]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert_served(tmp_path / "a.parquet", [f"k{y}" for y in LABELS])


def test_parquet_files_of_a_hub_are_splits_by_their_names(tmp_path):
    (tmp_path / "data").mkdir()
    parts = {
        "train-00000-of-00002": slice(0, 5),
        "train-00001-of-00002": slice(5, 8),
        "test-00000-of-00001": slice(8, 12),
    }
    for name, part in parts.items():
        pq.write_table(cells(part), tmp_path / "data" / f"{name}.parquet")
    data = ImageFolder(str(tmp_path), size=8)
    data.setup()
    assert data.found["rows"] == {"train": 8, "val": 4, "test": 4}
    assert sorted(data.examples(split="test")["x"][:, 0, 0, 0].tolist()) == [8, 9, 10, 11]


def save_to_disk(folder, part=slice(0, N), files: int = 2) -> None:
    """A folder as Dataset.save_to_disk of the datasets library writes it."""
    folder.mkdir(parents=True)
    table = cells(part, ["zebra", "ape", "cow"])
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    cuts = np.linspace(0, len(table), files + 1).astype(int)
    for name, start, end in zip(names, cuts, cuts[1:], strict=False):
        with pa.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table.slice(start, end - start))
    state = {"_data_files": [{"filename": n} for n in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


@pytest.mark.parametrize("files", [1, 3])
def test_a_saved_dataset_is_served_with_its_class_names(tmp_path, files, monkeypatch):
    save_to_disk(tmp_path / "a", files=files)
    words = np.array(["zebra", "ape", "cow"])[LABELS]
    assert_served(tmp_path / "a", words)
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    data = assert_served(tmp_path / "a", words)
    assert data.split("train")["x"].ndim == 1  # read where it lies


def test_a_saved_dictionary_of_datasets_has_its_splits(tmp_path):
    save_to_disk(tmp_path / "a" / "train", slice(0, 8))
    save_to_disk(tmp_path / "a" / "validation", slice(8, 12))
    (tmp_path / "a" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    data = ImageFolder(str(tmp_path / "a"), size=8)
    data.setup()
    assert data.found["rows"] == {"train": 8, "val": 4, "test": 4}
    assert data.classes == ["zebra", "ape", "cow"]


def test_a_missing_library_is_one_line_with_its_command(tmp_path, monkeypatch):
    pq.write_table(cells(), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install pyarrow$"):
        ImageFolder(str(tmp_path / "a.parquet"))


def test_one_torn_row_of_a_table_is_counted(tmp_path):
    table = pa.table({"image": [png(i) if i else b"torn" for i in range(N)]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = ImageFolder(str(tmp_path / "a.parquet"), size=8)
    with pytest.warns(UserWarning, match=r"1 of 12 images .*a\.parquet\[0\]"):
        data.setup()


def test_a_row_group_that_states_too_many_bytes_is_not_unpacked(tmp_path):
    many = pa.table({"image": [png(i) for i in range(N)]})
    bomb = pa.table({"image": [bytes(200 << 20)]})
    with pq.ParquetWriter(tmp_path / "a.parquet", many.schema) as writer:
        writer.write_table(many)
        writer.write_table(bomb)
    data = ImageFolder(str(tmp_path / "a.parquet"), size=8, max_pixels=1_000_000)
    with pytest.warns(UserWarning, match=r"1 of 13 images"):
        data.setup()
    assert "larger than --data.max_pixels=1000000" in data.found["skipped"]


@pytest.mark.parametrize(
    "suffix", ["npy", "npz", "csv", "parquet", "saved", "folder", "zip", "tar"]
)
def test_a_source_can_be_sent_to_a_process_that_is_not_forked(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("zoo.data.pictures.arrow.AT_ONCE", 2)
    path = tmp_path / f"a.{suffix}"
    if suffix in ("npy", "npz"):
        (np.save if suffix == "npy" else np.savez)(path, PIXELS)
    elif suffix == "parquet":
        pq.write_table(cells(), path)
    elif suffix == "saved":
        save_to_disk(path)
    else:
        index = written(tmp_path / "a", "csv")
        path = index if suffix == "csv" else index.parent / "images"
        if suffix in ("zip", "tar"):
            path = shutil.make_archive(str(tmp_path / "packed"), suffix, path)
    data = ImageFolder(str(path), size=8)
    wanted = data.source.read(data.source.items[3])
    sent = pickle.loads(pickle.dumps(data.source))
    assert np.array_equal(sent.read(sent.items[3]), wanted)
    sent.read(sent.items[-1])
    assert np.array_equal(sent.read(sent.items[3]), wanted)  # going back


def test_rows_that_a_hub_leaves_without_a_class_are_counted(tmp_path):
    table = cells(names=["zebra", "ape", "cow"])
    labels = pa.array([*LABELS[:-2], -1, -1])
    pq.write_table(table.set_column(1, "label", labels), tmp_path / "a.parquet")
    data = ImageFolder(str(tmp_path / "a.parquet"), size=8)
    data.setup()
    assert data.classes == ["zebra", "ape", "cow"] and data.found["images"] == 10
    ((reason, names),) = data.found["skipped"].items()
    assert reason.startswith("without a class") and names["number"] == 2


def spoilt(data: bytes, seed: int) -> bytes:
    """The bytes of a file with some of them changed, or its end cut off."""
    rng = np.random.default_rng(seed)
    raw = bytearray(data)
    if seed % 3 == 0:
        return bytes(raw[: rng.integers(len(raw))])
    for _ in range(1 + 20 * (seed % 3 - 1)):
        raw[rng.integers(len(raw))] = rng.integers(256)
    return bytes(raw)


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "jsonl", "parquet", "arrow", "zip", "tar"])
def test_a_spoilt_file_is_served_in_part_or_refused_in_one_line(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix in ("npy", "npz"):
        (np.save if suffix == "npy" else np.savez)(path, PIXELS)
    elif suffix == "parquet":
        pq.write_table(cells(), path)
    elif suffix == "arrow":
        save_to_disk(tmp_path / "saved", files=1)
        path = next((tmp_path / "saved").glob("*.arrow"))
    else:
        index = written(tmp_path / "a", "jsonl" if suffix == "jsonl" else "csv")
        path = index
        if suffix in ("zip", "tar"):
            path = Path(shutil.make_archive(str(tmp_path / "packed"), suffix, tmp_path / "a"))
    whole, outcomes = path.read_bytes(), []
    for seed in range(60):
        path.write_bytes(spoilt(whole, seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = ImageFolder(str(path), size=8)
                data.setup()
            outcomes.append(data.found["images"])
        except ValueError as error:
            outcomes.append(str(error))
    served = [n for n in outcomes if isinstance(n, int)]
    refused = [said for said in outcomes if isinstance(said, str)]
    assert served and all(3 <= n <= N for n in served)
    assert refused and all(str(path) in said and "\n" not in said for said in refused)

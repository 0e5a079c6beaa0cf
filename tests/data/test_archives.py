"""Zip and tar files: nothing is lost behind damage, and each worker reads for itself."""

import gzip
import io
import itertools
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.image_folder import ImageFolder

N = 40


def encoded(i: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pixels[0, 0] = i
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def packed(path: Path, n: int = N, compressed: int = zipfile.ZIP_STORED) -> Path:
    names = [f"{'cat' if i % 2 else 'dog'}/{i:03d}.png" for i in range(n)]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", compressed) as archive:
            for i, name in enumerate(names):
                archive.writestr(name, encoded(i))
        return path
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as archive:
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(i))
            archive.addfile(info, io.BytesIO(encoded(i)))
    return path


def numbers(data: ImageFolder) -> set[int]:
    """Which of the images are served, by their first pixel."""
    data.setup()
    every = [data.examples(split=s)["x"] for s in ("train", "val", "test")]
    return {int(v) for x in every for v in x[:, 0, 0, 0]}


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_workers_read_the_rows_of_one_process(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    path = packed(tmp_path / f"a.{suffix}", compressed=zipfile.ZIP_DEFLATED)
    alone, workers = (ImageFolder(str(path), size=24, batch_size=8, num_workers=n) for n in (0, 2))
    steps = 60
    pairs = zip(alone.train_dataloader(), workers.train_dataloader(), strict=False)
    for a, b in itertools.islice(pairs, steps):
        assert all(torch.equal(a[k], b[k]) for k in ("x", "y", "index"))


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_processes_forked_from_a_reader_do_not_share_its_place(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    data = ImageFolder(str(packed(tmp_path / f"a.{suffix}")), size=24)
    wanted = data.examples()["x"]
    ends = [os.pipe() for _ in range(3)]
    children = []
    for _, end in ends:
        children.append(os.fork())
        if not children[-1]:
            try:
                same = all(torch.equal(data.examples()["x"], wanted) for _ in range(10))
            except BaseException:
                same = False
            os.write(end, b"1" if same else b"0")
            os._exit(0)
    assert [os.read(end, 1) for end, _ in ends] == [b"1"] * 3
    for child in children:
        os.waitpid(child, 0)
    for pair in ends:
        [os.close(end) for end in pair]


@pytest.mark.parametrize("suffix", ["tar", "gz", "bz2", "xz"])
def test_tars_are_read_in_order_whatever_their_compression(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("zoo.data.image_folder.IN_MEMORY", 0)
    data = ImageFolder(str(packed(tmp_path / f"a.{suffix}")), size=24)
    assert numbers(data) == {*range(N)}
    assert (data.split("train")["x"].ndim == 1) == (suffix == "tar")  # only it is read on demand


def test_one_bad_member_of_a_zip_is_counted_and_the_rest_served(tmp_path):
    path = packed(tmp_path / "a.zip")
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("cat/005.png").header_offset
    raw[offset + 200] ^= 255
    path.write_bytes(raw)
    data = ImageFolder(str(path), size=24)
    with pytest.warns(UserWarning, match=r"1 of 40 images .*cat/005\.png \(BadZipFile"):
        assert numbers(data) == {*range(N)} - {5}


def test_an_encrypted_member_is_counted_and_the_rest_served(tmp_path):
    path = packed(tmp_path / "a.zip")
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo("cat/005.png").header_offset
    central = raw.index(b"PK\x01\x02")
    while raw[central + 46 : central + 57] != b"cat/005.png":
        central = raw.index(b"PK\x01\x02", central + 1)
    raw[local + 6] |= 1
    raw[central + 8] |= 1
    path.write_bytes(raw)
    data = ImageFolder(str(path), size=24)
    with pytest.warns(UserWarning, match=r"cat/005\.png \(RuntimeError.*password"):
        assert numbers(data) == {*range(N)} - {5}


@pytest.mark.parametrize("suffix", ["tar", "gz"])
def test_images_behind_a_damaged_header_are_found_and_the_damage_counted(tmp_path, suffix):
    path = packed(tmp_path / "a.tar")
    raw = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        offset = archive.getmember("cat/005.png").offset
    raw[offset + 10 : offset + 300] = b"\xff" * 290
    path.write_bytes(raw)
    if suffix == "gz":
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(bytes(raw)))
    data = ImageFolder(str(path), size=24)
    assert numbers(data) == {*range(N)} - {5}
    lost = data.found["skipped"]["damaged parts of the archive"]
    assert lost["number"] == 1 and "behind dog/004.png" in lost["first"][0]


@pytest.mark.parametrize("suffix", ["tar", "gz"])
@pytest.mark.parametrize("end", [22 * 2560, 22 * 2560 + 300, 22 * 2560 + 900])
def test_a_tar_cut_short_serves_what_is_there_and_says_so(tmp_path, suffix, end):
    path = packed(tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        assert {b.offset - a.offset for a, b in itertools.pairwise(archive)} == {2560}
    raw = path.read_bytes()[:end]
    if suffix == "gz":
        path = tmp_path / "a.tar.gz"
        raw = gzip.compress(raw)
    path.write_bytes(raw)
    data = ImageFolder(str(path), size=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert numbers(data) == {*range(22)}
    lost = data.found["skipped"]["damaged parts of the archive"]["first"][0]
    assert f"behind {'cat/021' if end < 22 * 2560 + 512 else 'dog/022'}.png" in lost


def test_a_compressed_tar_cut_short_serves_what_is_there_and_says_so(tmp_path):
    path = packed(tmp_path / "a.gz")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    data = ImageFolder(str(path), size=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        served = numbers(data)
    assert {*range(10)} <= served and len(served) < 25
    assert "end-of-stream" in str(data.found["skipped"]["damaged parts of the archive"])


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("suffix", ["tar", "gz"])
def test_a_sound_tar_has_no_damage(tmp_path, form, suffix):
    of_all = {"comment": "of all members"} if form == tarfile.PAX_FORMAT else None
    mode = "w:" + suffix.replace("tar", "")
    with tarfile.open(tmp_path / "a", mode, format=form, pax_headers=of_all) as archive:
        for i in range(6):
            long = "x" * 70 if form == tarfile.USTAR_FORMAT else "x" * 200
            folder = tarfile.TarInfo(f"folder{i}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            info = tarfile.TarInfo(f"folder{i}/{long}{i}.png")
            info.size = len(encoded(i))
            archive.addfile(info, io.BytesIO(encoded(i)))
    data = ImageFolder(str(tmp_path / "a"), size=24)
    assert numbers(data) == {*range(6)} and data.found["skipped"] == {}


def test_links_within_a_tar_are_images_too(tmp_path):
    path = packed(tmp_path / "a.tar", n=6)
    with tarfile.open(path, "a") as archive:
        for name, target, kind in (
            ("cat/hard.png", "cat/001.png", tarfile.LNKTYPE),
            ("cat/soft.png", "../dog/002.png", tarfile.SYMTYPE),
            ("cat/dead.png", "nowhere.png", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    data = ImageFolder(str(path), size=24)
    data.setup()
    assert sum(data.found["rows"].values()) == 8
    assert data.found["skipped"]["links to nothing"]["first"] == ["cat/dead.png"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.npz", "a.npy", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(ValueError) as caught:
        ImageFolder(str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)

"""Every mode and format of an image becomes the levels that it states, within a stated limit."""

import io
import resource
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from zoo.data.image_folder import ImageFolder

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def served(folder, channels=1, size=16, **options):
    """The images of a folder of three equal files, as levels (C, size, size)."""
    data = ImageFolder(str(folder), size=size, channels=channels, **options)
    x = np.concatenate([data.examples(split=s)["x"].numpy() for s in ("train", "val", "test")])
    assert len(x) == 3 and (x == x[0]).all()
    return data, x[0]


def three(folder, image: Image.Image, suffix: str, **options):
    folder.mkdir(exist_ok=True)
    for i in range(3):
        image.save(folder / f"{i}.{suffix}", **options)
    return folder


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (RAMP.astype(np.uint16) * 257, "png"),
        (RAMP.astype(np.uint16) * 257, "tiff"),
        (RAMP.astype(">u2") * 257, "tiff"),
        (RAMP.astype(np.uint16) * 257, "pgm"),
        (RAMP.astype(np.int32) * 257, "tiff"),
        (RAMP.astype(np.int32) * ((2**31 - 1) // 255), "tiff"),
        (RAMP.astype(np.float32) / 255, "tiff"),
        (RAMP.astype(np.float32), "tiff"),
        (RAMP.astype(np.float32) * 257, "tiff"),
        (RAMP.astype(np.float32) / 255, "pfm"),
        (RAMP, "png"),
        (RAMP, "tga"),
    ],
    ids=lambda v: v if isinstance(v, str) else f"{v.dtype} to {v.max():g}",
)
def test_a_ramp_from_black_to_white_stays_one_in_every_depth(tmp_path, pixels, suffix):
    _, x = served(three(tmp_path / "a", Image.fromarray(pixels), suffix))
    assert np.array_equal(x[0], RAMP)
    _, x = served(tmp_path / "a", channels=3)
    assert (x == RAMP).all()


COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)


@pytest.mark.parametrize(
    ("image", "suffix", "wanted"),
    [
        (Image.fromarray(RAMP > 99), "png", np.where(RAMP > 99, 255, 0)),
        (Image.fromarray(COLOURS), "png", COLOURS),
        (Image.fromarray(np.dstack([RAMP, 0 * RAMP])).convert("LA"), "png", 255 + 0 * RAMP),
        (Image.fromarray(np.dstack([COLOURS, 0 * RAMP])), "png", 255 + 0 * COLOURS),
        (Image.fromarray(np.dstack([COLOURS, 255 + 0 * RAMP])), "png", COLOURS),
        (Image.fromarray(np.dstack([255 - COLOURS, 0 * RAMP]), "CMYK"), "tiff", COLOURS),
        (Image.fromarray(RAMP).convert("P"), "png", RAMP),
        (Image.fromarray(RAMP).convert("P"), "gif", RAMP),
    ],
    ids=["1", "RGB", "LA clear", "RGBA clear", "RGBA", "CMYK", "P png", "P gif"],
)
def test_colours_and_transparency_are_what_they_state(tmp_path, image, suffix, wanted):
    _, x = served(three(tmp_path / "a", image, suffix), channels=3)
    wanted = np.dstack([wanted] * 3) if wanted.ndim == 2 else wanted
    assert np.abs(x.transpose(1, 2, 0) - wanted).max() <= 1


def test_transparent_sixteen_bit_pixels_are_white(tmp_path):
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    three(tmp_path / "a", image, "png", transparency=0)
    _, x = served(tmp_path / "a")
    assert x[0, 0, 0] == 255 and np.array_equal(x[0].ravel()[1:], RAMP.ravel()[1:])


def test_lab_images_have_the_colours_of_their_profile(tmp_path):
    lab = ImageCms.profileToProfile(
        Image.fromarray(COLOURS // 4 + 90),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    _, x = served(three(tmp_path / "a", lab, "tiff"), channels=3)
    assert np.abs(x.transpose(1, 2, 0) - (COLOURS // 4 + 90)).max() <= 4


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((8, 8), np.nan, np.float32),
        np.full((8, 8), -1.0, np.float32),
        np.full((8, 8), 1e9, np.float32),
        np.full((8, 8), -5, np.int32),
    ],
    ids=["nan", "negative", "huge", "negative integers"],
)
def test_values_without_a_white_are_skipped_and_said(tmp_path, pixels):
    folder = three(tmp_path / "a", Image.fromarray(RAMP), "png")
    Image.fromarray(pixels).save(folder / "strange.tiff")
    with pytest.warns(UserWarning, match=r"1 of 4 images cannot be read .*strange\.tiff"):
        data, _ = served(folder)
    assert data.found["skipped"]["cannot be read"]["number"] == 1


def test_the_scale_of_float_images_is_said(tmp_path):
    data, _ = served(three(tmp_path / "a", Image.fromarray(RAMP / np.float32(255)), "tiff"))
    assert "3 images: float pixels are read as 0..1" in data.found["notes"]


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jp2", "tga", "heic", "webp", "apng", "qoi"])
def test_whatever_pillow_reads_is_read(tmp_path, suffix):
    if suffix == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    image = Image.fromarray(np.full((32, 32, 3), (200, 100, 50), np.uint8))
    kind = {"jfif": "JPEG", "apng": "PNG"}.get(suffix)
    data, x = served(three(tmp_path / "a", image, suffix, format=kind), channels=3)
    assert np.abs(x.mean((1, 2)) - (200, 100, 50)).max() < 8
    assert data.found["images"] == 3 and data.found["skipped"] == {}


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_only_the_first_frame_of_several_is_used_and_that_is_said(tmp_path, suffix):
    folder = three(tmp_path / "a", Image.fromarray(RAMP), "png")
    still = Image.fromarray(RAMP).convert("RGB")
    more = [Image.fromarray(np.roll(RAMP, i)).convert("RGB") for i in (3, 9)]
    (folder / f"0.{suffix}").unlink(missing_ok=True)
    still.save(folder / f"moving.{suffix}", save_all=True, append_images=more, lossless=True)
    with open(folder / f"moving.{suffix}", "rb") as file:
        assert Image.open(file).n_frames == 3
    data = ImageFolder(str(folder), size=16, channels=1)
    data.setup()
    assert "1 images: only the first of several frames is used" in data.found["notes"]


def bomb(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel, rows of zeros compressed by the thousand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    packed = zlib.compress(b"\0" * ((width // 8 + 1) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MB


def test_a_picture_that_states_too_many_pixels_is_not_decoded(tmp_path):
    folder = three(tmp_path / "a", Image.fromarray(RAMP), "png")
    (folder / "bomb.png").write_bytes(bomb(16_000, 8_000))
    before = peak()
    with pytest.warns(UserWarning, match="1 of 4 images"):
        data, _ = served(folder)
    assert peak() - before < 60
    (limit,) = data.found["skipped"]
    assert "--data.max_pixels=50000000" in limit and "bomb.png" in str(data.found["skipped"])


def test_the_limit_is_the_options_and_not_pillows(tmp_path, monkeypatch):
    folder = three(tmp_path / "a", Image.fromarray(RAMP), "png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"none of the 3 images .* more than 255 pixels"):
        ImageFolder(str(folder), max_pixels=255).setup()
    ImageFolder(str(folder), max_pixels=256).setup()
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ValueError, match="max_pixels is at least 1, got 0"):
        ImageFolder(str(folder), max_pixels=0)


def test_a_member_that_states_too_many_bytes_is_not_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            buffer = io.BytesIO()
            Image.fromarray(RAMP).save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
        with archive.open("bomb.png", "w") as member:
            for _ in range(500):
                member.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.warns(UserWarning, match="1 of 4 images"):
        data, _ = served(path)
    assert tracemalloc.get_traced_memory()[1] < 60 << 20
    tracemalloc.stop()
    assert "524,288,000 bytes" in str(data.found["skipped"])


def test_the_rotation_that_a_camera_states_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    _, x = served(three(tmp_path / "a", Image.fromarray(RAMP), "png", exif=exif))
    assert np.array_equal(x[0], np.rot90(RAMP, -1))


def test_no_image_starts_another_program(tmp_path, monkeypatch):
    folder = three(tmp_path / "a", Image.fromarray(RAMP), "png")
    Image.fromarray(RAMP).save(folder / "hostile.eps")
    (folder / "hostile.eps").rename(folder / "hostile.png")
    Image.fromarray(RAMP).save(folder / "plain.eps")
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: started.append(a))
    with pytest.warns(UserWarning, match=r"1 of 4 images .*hostile\.png"):
        data, _ = served(folder)
    assert not started and any("1 .eps" in note for note in data.found["notes"])

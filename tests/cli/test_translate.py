"""``zoo.sample --source`` translates files under their names, and says what it left out."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import fit, sample
from zoo.core import checkpoint

QUIET = [
    "--trainer.max_steps=2",
    "--trainer.enable_progress_bar=false",
    "--wandb.mode=disabled",
    "--fidelity.n_fake=8",
    "--fidelity.extractor=pixels",
    "--fidelity.precision_recall_n=8",
    "--memorisation.enabled=false",
    "--sample_grid.n=4",
]


@pytest.fixture(scope="module")
def rain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rain") / "run"
    data = ["--data.kind=rain", "--data.size=16", "--data.options={n: 40, n_val: 20, n_test: 20}"]
    options = ["--model.width=4", "--model.levels=2", "--model.dropout=0"]
    assert fit.main(["--model=pix2pix", *data, *options, *QUIET, f"--run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains") / "run"
    options = ["--model=cyclegan", "--data.kind=colour", "--model.width=4", "--model.blocks=1"]
    options += ["--model.lr_g=0.01"]  # so that the two differ
    assert fit.main([*options, *QUIET, f"--run_dir={folder}"]) == 0
    return folder


def photo(path, w, h, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def run(*arguments):
    return sample.main([str(a) for a in arguments])


def test_a_folder_keeps_its_names_and_every_image_its_sides(rain, tmp_path, capsys):
    photo(tmp_path / "in" / "one.png", 30, 20)
    photo(tmp_path / "in" / "two.bmp", 16, 40, 1)
    (tmp_path / "in" / "three.png").write_bytes(b"no image")
    (tmp_path / "in" / "words.txt").write_text("no image")
    photo(tmp_path / "in" / "below" / "four.png", 16, 16)
    photo(tmp_path / "in" / ".hidden.png", 16, 16)
    out = tmp_path / "out"
    assert run("--ckpt", rain, "--source", tmp_path / "in", "--out", out) == 0
    sizes = {p.name: Image.open(p).size for p in out.iterdir()}
    assert sizes == {"one.png": (24, 16), "two.png": (16, 40)}  # the shorter side as in training
    said = capsys.readouterr().out
    assert "2 images translated" in said and "skipped 1: three.png (" in said
    assert "read with 16 pixels to the shorter side" in said and "--size=0: as they are" in said
    assert "not read: 3 others, .hidden.png, below, words.txt" in said
    assert (
        run("--ckpt", rain, "--source", tmp_path / "in", "--out", tmp_path / "o", "--size", 0) == 0
    )
    assert "read at their own sizes" in capsys.readouterr().out
    sizes = {p.name: Image.open(p).size for p in (tmp_path / "o").iterdir()}
    assert sizes == {"one.png": (28, 20), "two.png": (16, 40)}  # multiples of 4


def test_a_file_is_what_the_model_makes_of_it(rain, tmp_path):
    pixels = photo(tmp_path / "a.png", 16, 16)
    out = tmp_path / "b.png"
    assert run("--ckpt", rain, "--source", tmp_path / "a.png", "--out", out) == 0
    model = checkpoint.load(rain / "checkpoints" / "last.ckpt")
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        made = model.eval().g(x / 127.5 - 1)[0]
    wanted = ((made + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open(out)).astype(float) - wanted).max() <= 1


def test_the_way_back_is_the_other_generator(domains, tmp_path):
    photo(tmp_path / "a.png", 8, 8)
    made = {}
    for name, more in (("there", []), ("back", ["--back"])):
        out = tmp_path / f"{name}.png"
        assert run("--ckpt", domains, "--source", tmp_path / "a.png", "--out", out, *more) == 0
        made[name] = np.asarray(Image.open(out))
    assert made["there"].shape == made["back"].shape == (16, 16, 3)
    assert not np.array_equal(made["there"], made["back"])


def test_files_that_differ_by_their_endings_both_stay(rain, tmp_path):
    photo(tmp_path / "in" / "x.png", 16, 16)
    photo(tmp_path / "in" / "x.bmp", 16, 16, 1)
    assert run("--ckpt", rain, "--source", tmp_path / "in", "--out", tmp_path / "o") == 0
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"x.png.png", "x.bmp.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "absent"], "an image or a folder of images"),
        (["--source", "in", "--out", "x.npz"], "is a folder"),
        (["--source", "in", "--out", "x.png"], "of 2 translated images is a folder"),
        (["--source", "in", "--out", "o", "--back"], "knows no way back"),
        (["--back"], "name them by --source"),
        (["--source", "in", "--out", "o", "--inpaint", "top"], "leave --label and --inpaint out"),
        (["--source", "in", "--out", "o", "--size", "-1"], "or 0 for that of the file, got -1"),
        (["--source", "tiny", "--out", "o", "--size", "0"], "fewer than 4; set --size"),
        (["--source", "in", "--out", "o", "--n", "2"], "leave --n out"),
        (["--source", "in/1.png", "--out", "in/1.png"], "would write over the source"),
        (["--source", "thread", "--out", "o"], "TooLarge: 16x80,000,000 pixels"),
        (["--source", "sparse", "--out", "o"], "TooLarge: 3,221,225,472 bytes"),
    ],
)
def test_every_mistake_is_one_line(rain, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "in" / "1.png", 16, 16)
    photo(tmp_path / "in" / "2.png", 16, 16)
    photo(tmp_path / "tiny" / "1.png", 3, 3)
    (tmp_path / "thread").mkdir()
    Image.new("L", (1, 5_000_000)).save(tmp_path / "thread" / "1.bmp")
    (tmp_path / "sparse").mkdir()
    with (tmp_path / "sparse" / "1.png").open("wb") as file:
        file.truncate(3 << 30)
    assert run("--ckpt", rain, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error

"""``zoo.sample`` completes test images, draws by class, and says what it cannot do."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import fit, sample

SMALL = [
    "--data=digits",
    "--trainer.max_steps=3",
    "--trainer.enable_progress_bar=false",
    "--wandb.mode=disabled",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--sample_grid.n=20",
]


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "made"
    arguments = [
        "--model=made",
        *SMALL,
        "--data.binarize=threshold",
        "--model.conditional=true",
        "--model.hidden=32",
    ]
    assert fit.main([*arguments, f"--run_dir={folder}"]) == 0
    return folder


def test_test_images_are_completed(conditional, tmp_path):
    assert (
        sample.main(
            [
                "--ckpt",
                str(conditional),
                "--inpaint",
                "bottom",
                "--n",
                "5",
                "--out",
                str(tmp_path / "c.npz"),
            ]
        )
        == 0
    )
    found = np.load(tmp_path / "c.npz")
    assert found["completions"].shape == (5, 4, 1, 8, 8) and found["known"].shape == (1, 8, 8)
    assert (
        found["completions"][:, :, :, :4] == found["x"][:, None, :, :4]
    ).all()  # what was shown is kept
    assert (
        found["completions"][:, 0] != found["completions"][:, 1]
    ).any()  # each completion is another draw
    assert (
        sample.main(
            [
                "--ckpt",
                str(conditional),
                "--inpaint",
                "left",
                "--n",
                "5",
                "--out",
                str(tmp_path / "c.png"),
            ]
        )
        == 0
    )
    assert Image.open(tmp_path / "c.png").width > 100


def test_a_conditional_model_draws_the_classes_asked_for(conditional, tmp_path):
    out = tmp_path / "x.npz"
    assert (
        sample.main(
            [
                "--ckpt",
                str(conditional),
                "--label",
                "3",
                "--label",
                "5",
                "--n",
                "4",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert np.load(out)["y"].tolist() == [3, 5, 3, 5]
    assert sample.main(["--ckpt", str(conditional), "--n", "12", "--out", str(out)]) == 0
    assert np.load(out)["y"].tolist() == [*range(10), 0, 1]


def test_a_picture_of_a_conditional_model_has_one_class_a_row():
    order, columns, classes = sample._class_rows(torch.tensor([3, 5, 1, 3, 5, 1, 3]))
    assert columns == 3 and classes == [3, 5, 1]
    assert order == [0, 3, 6, 1, 4, None, 2, 5, None]


def test_pictures_say_what_they_are_of(conditional, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert sample.main(["--ckpt", str(conditional), "--label=7", "--n=5", f"--out={out}"]) == 0
    words = Image.open(out).text["Description"].splitlines()
    assert words[0] == "Samples of made" and "step 3 · raw weights · seed 0" in words[1]
    assert "drawn by made" in words and any("7" in w for w in words[3:])
    assert sample.main(["--ckpt", str(conditional), "--n=1500", f"--out={out}"]) == 0
    cut = Image.open(out).text["Description"].splitlines()[-1]
    assert "shown" in cut and f"{cut}; a .npz has all rows" in capsys.readouterr().out


def test_the_run_drew_pictures_by_class_and_completions(conditional):
    assert {p.name for p in (conditional / "samples").iterdir()} == {
        "step_000003.png",
        "completions_000003.png",
        "neighbours_000003.png",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "10"], "--label is one of 0..9, got 10"),
        (["--inpaint", "middle"], "one of bottom, top, left, right, centre, got 'middle'"),
        (["--inpaint", "top", "--out", "folder"], "--inpaint writes a .png or a .npz"),
    ],
)
def test_impossible_requests_are_one_line(conditional, capsys, options, message):
    assert sample.main(["--ckpt", str(conditional), *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_completing_needs_the_runs_data(conditional, tmp_path, capsys):
    lonely = tmp_path / "a" / "b" / "last.ckpt"
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes((conditional / "checkpoints" / "last.ckpt").read_bytes())
    assert (
        sample.main(["--ckpt", str(lonely), "--inpaint", "top", "--out", str(tmp_path / "c.png")])
        == 2
    )
    assert "config.yaml does not exist, so the run's data are unknown" in capsys.readouterr().err

"""``zoo.explore`` draws what a checkpoint can show, and says what it cannot."""

import pytest
from PIL import Image

from zoo import explore, fit

SMALL = [
    "--data=digits",
    "--trainer.max_steps=3",
    "--trainer.enable_progress_bar=false",
    "--wandb.mode=disabled",
    "--fidelity.n_fake=64",
    "--fidelity.extractor=pixels",
    "--sample_grid.n=20",
    "--memorisation.enabled=false",
    "--latent_space.enabled=false",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    for name, options in {
        "vae": ["--model.width=16", "--model.latent=2"],
        "dcgan": ["--model.width=8"],
        "anogan": ["--model.width=8", "--model.gamma=3", "--data.left_out=[0,5]"],
        "made": ["--model.hidden=16", "--data.binarize=threshold"],
    }.items():
        assert fit.main([f"--model={name}", *SMALL, *options, f"--run_dir={folder / name}"]) == 0
    return folder


def drawn(folder):
    return sorted(p.stem for p in folder.glob("*.png"))


def test_everything_is_drawn_into_the_run_folder(runs, capsys):
    assert explore.main(["--ckpt", str(runs / "vae"), "--n", "4"]) == 0
    kinds = [
        f"interpolation_{of}_{kind}"
        for of in ("images", "samples")
        for kind in ("linear", "spherical")
    ]
    assert drawn(runs / "vae" / "explore") == [
        "arithmetic",
        *kinds,
        "manifold",
        "neighbours",
        "reconstructions",
        "traversals",
    ]
    said = capsys.readouterr().out
    assert "times as far as validation images" in said and said.count(".png") == 9
    assert explore.main(["--ckpt", str(runs / "made"), "--n", "4"]) == 0
    assert drawn(runs / "made" / "explore") == ["neighbours"]


def test_scores_rank_images_and_tell_classes_never_seen_from_the_others(runs, tmp_path, capsys):
    assert explore.main(["--ckpt", str(runs / "anogan"), "score", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert 0 <= float(said.split("AUROC ")[1].split(":")[0]) <= 1
    with Image.open(tmp_path / "anomalies.png") as picture:
        assert picture.width > 100
    assert explore.main(["--ckpt", str(runs / "vae"), "score", "--out", str(tmp_path)]) == 2
    assert "vae cannot score; it can" in capsys.readouterr().err


def test_a_generator_interpolates_and_adds_samples_chosen_by_number(runs, tmp_path):
    arguments = ["--ckpt", str(runs / "dcgan"), "--out", str(tmp_path)]
    assert explore.main([*arguments, "interpolate", "--frames", "5", "--n", "3"]) == 0
    assert drawn(tmp_path) == ["interpolation_samples_linear"]  # its prior is uniform
    assert (
        explore.main([*arguments, "arithmetic", "--a", "1,2,3", "--b", "4", "--c", "60,61,62"]) == 0
    )
    assert {"samples", "arithmetic"} <= {*drawn(tmp_path)}
    assert Image.open(tmp_path / "arithmetic.png").width > 9 * 72


def test_classes_of_a_generator_are_found_by_a_classifier(runs, tmp_path):
    assert (
        explore.main(
            [
                "--ckpt",
                str(runs / "dcgan"),
                "--out",
                str(tmp_path),
                "arithmetic",
                "--a",
                "class:3",
                "--b",
                "class:1",
                "--c",
                "class:7",
            ]
        )
        == 0
    )
    assert "arithmetic" in drawn(tmp_path)


def test_a_model_with_filters_shows_them(tmp_path):
    options = ["--preset=patches", "--data.n=300", "--data.n_val=40", "--data.batch_size=100"]
    few = [o for o in SMALL if not o.startswith("--data")]
    assert fit.main(["--model=ica", *options, *few, f"--run_dir={tmp_path / 'ica'}"]) == 0
    assert explore.main(["--ckpt", str(tmp_path / "ica"), "filters"]) == 0
    assert drawn(tmp_path / "ica" / "explore") == ["filters"]
    picture = Image.open(tmp_path / "ica" / "explore" / "filters.png")
    assert picture.width > 2 * 12 * 40  # two kinds of 144, side by side


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        ("dcgan", ["manifold"], "needs a prior over 2 latent dimensions, this model has 32"),
        ("dcgan", ["reconstruct"], "dcgan cannot reconstruct; it can"),
        ("made", ["interpolate"], "made has no latent codes"),
        ("made", ["filters"], "made has no filters to show; ica and pca have"),
        ("vae", ["arithmetic", "--a", "class:3"], "three groups"),
        (
            "vae",
            ["arithmetic", "--a", "class:3", "--b", "class:3", "--c", "class:1"],
            "three different groups",
        ),
        ("vae", ["arithmetic", "--a", "class:10", "--b", "1", "--c", "2"], "has classes 0..9"),
        ("vae", ["arithmetic", "--a", "seven", "--b", "1", "--c", "2"], "class:K or numbers"),
        ("vae", ["arithmetic", "--a", "1", "--b", "2", "--c", "5000"], "numbers are 0..1436"),
        ("vae", ["interpolate", "--frames", "1"], "--frames at least 2, got 8 and 1"),
        ("vae", ["mix", "--frames", "3"], "--frames does nothing for mix; it is of interpolate"),
        ("vae", ["score", "--a", "class:1"], "--a does nothing for score; it is of arithmetic"),
        ("vae", ["filters", "--n", "3"], "--n does nothing for filters"),
        ("nowhere", ["interpolate"], "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(runs, capsys, run, arguments, message):
    assert explore.main(["--ckpt", str(runs / run), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1

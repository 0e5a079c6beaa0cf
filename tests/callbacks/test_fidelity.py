"""Fidelity scores what it says against what it says, under names that say with what, and writes the
protocol down.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from callbacks import EMA, BitsPerDim, Fidelity, Memorisation
from tests.callbacks.fakes import (
    POINTS,
    SPEC,
    Free,
    Gauss,
    Painter,
    Pair,
    Recorder,
    Witness,
    run,
    squares,
)
from tests.support import Given
from zoo.core import Image, Spec
from zoo.core.draw import draw
from zoo.core.noise import seeded
from zoo.core.threads import machine
from zoo.metrics import FrechetDistance, KernelDistance, Pixels, extractors
from zoo.metrics.am_score import am_score
from zoo.metrics.inception_score import classes_present, inception_score
from zoo.metrics.parzen import GRID, choose_sigma, parzen_log_density
from zoo.metrics.prdc import prdc
from zoo.translation.cyclegan import CycleGAN


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 30)


def small(**options):
    return Fidelity(**{"n_fake": 70, "precision_recall_n": 40, **options})


def values(trainer):
    return {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def test_values_are_those_of_the_metrics_on_the_same_samples():
    model, data = Free(), squares()
    found = values(run(model, data, 2, small(seed=5), every=2))
    batch, fake = data.examples(), draw(model, 70, 5)
    net = Pixels(SPEC, batch["x"], batch["y"])
    (real, _), (fake, p) = net(batch["x"], SPEC), net(fake, SPEC)
    fid, kid = FrechetDistance(16), KernelDistance(16, 50, 200)
    fid.update(real, real=True)
    fid.update(fake)
    kid.update(real, 0, real=True)
    kid.update(fake, 0)
    expected = {"fid": fid.compute(), "kid": kid.compute()[0], **prdc(real[:40], fake[:40], 3)}
    expected |= {
        "is": inception_score(p, 1)[0],
        "classes": classes_present(p),
        "am": sum(am_score(net(batch["x"], SPEC)[1], p)),
    }
    assert {f"val/{k}_pixels" for k in expected} | {f"val/{k}_squaresnet" for k in expected} == set(
        found
    )
    for name, value in expected.items():
        assert found[f"val/{name}_pixels"] == pytest.approx(float(value), rel=1e-5, abs=1e-6), name


def test_the_way_back_of_two_domains_is_scored_against_the_other_domain():
    torch.manual_seed(0)
    spec = Spec("domains", a=Image((1, 8, 8), 5), b=Image((1, 8, 8), 5))
    a, b = torch.randint(3, (30, 1, 8, 8)).float(), torch.randint(1, 5, (30, 1, 8, 8)).float()
    data, model = Given(spec, fields={"a": a, "b": b}), CycleGAN(spec, width=4, blocks=1)
    found = values(run(model, data, 1, small(extractor="pixels"), every=1))
    rows = torch.randint(30, (70,), generator=seeded(0, "labels"))
    for name, real, made in (
        ("", b, model.translate(a[rows])),
        ("_a", a, model.translate(b[rows], "a")),
    ):
        score = FrechetDistance(64)
        score.update(real.flatten(1) / 4, real=True)
        score.update(made.flatten(1) / 4)
        assert found[f"val/fid_pixels{name}"] == pytest.approx(float(score.compute()), rel=1e-5)
    assert found["val/fid_pixels"] != found["val/fid_pixels_a"]
    told = json.loads(Path("protocol.json").read_text())
    assert {"fidelity", "fidelity of a"} <= set(told) and "fidelity of b" not in told


def test_no_score_is_taken_where_they_are_switched_off():
    assert not values(run(Free(), squares(), 1, small(enabled=False), every=1))


def test_the_parzen_window_is_on_held_out_images_and_named_with_its_width():
    model, data = Free(), squares()
    found = values(run(model, data, 2, small(seed=5, extractor="pixels", parzen=True), every=2))
    held_out, fake = (
        SPEC.to_unit(x).flatten(1) for x in (data.examples(split="val")["x"], draw(model, 70, 5))
    )
    sigma = found["val/parzen_sigma"]
    assert sigma == pytest.approx(choose_sigma(held_out[::2], fake, GRID))
    assert found["val/parzen_nats"] == pytest.approx(
        parzen_log_density(held_out[1::2], fake, sigma).mean().item(), rel=1e-5
    )


def test_conditional_samples_are_asked_for_their_label():
    class Right(Painter):
        """Class y has level y + 1."""

        def sample(self, n, *, y, generator=None):
            return super().sample(n, y=y + 1, generator=generator)

    class Swapped(Painter):
        """The first two classes are painted as each other."""

        def sample(self, n, *, y, generator=None):
            return super().sample(n, y=torch.where(y < 2, 1 - y, y) + 1, generator=generator)

    right, swapped = (
        values(run(m, squares(), 1, small(n_fake=300), every=1)) for m in (Right(), Swapped())
    )
    assert right["val/cond_acc_pixels"] == 1
    assert swapped["val/cond_acc_pixels"] == pytest.approx(1 / 3, abs=0.1)
    assert "val/cond_acc_pixels" not in values(run(Free(), squares(), 1, small(), every=1))


def test_data_scored_against_themselves_are_near_and_noise_is_far():
    class Memory(Free):
        def sample(self, n, *, generator=None):
            level = torch.randint(3, (n, 1, 1, 1), generator=generator) + 1.0
            return level.expand(n, 1, 4, 4)

    near, far = (
        values(run(m, squares(), 1, small(n_fake=300), every=1)) for m in (Memory(), Free())
    )
    for name in ("pixels", "squaresnet"):
        assert near[f"val/fid_{name}"] < 0.1 * far[f"val/fid_{name}"]
    assert near["val/classes_pixels"] == 3


def test_x_axis_is_generator_steps_and_no_trace_is_left():
    logger, fidelity = Recorder(), small()
    witness = Witness(fidelity)
    run(Painter(), squares(), 6, fidelity, EMA(), every=2, logger=logger)
    assert logger.steps("val/fid") == [2, 4, 6] and witness.calls > 3


def test_real_features_are_computed_once_a_run(monkeypatch):
    data, asked = squares(), []
    examples = data.examples
    monkeypatch.setattr(data, "examples", lambda *a: (asked.append(a), examples(*a))[1])
    fidelity = small()
    first = values(run(Free(), data, 1, fidelity, every=1))
    seen = len(asked)
    assert (
        seen > 0 and values(run(Free(), data, 3, fidelity, every=1)) == first and len(asked) == seen
    )


def test_conditional_models_get_the_labels_of_the_data():
    found = values(run(Painter(), squares(), 1, small(n_fake=300), every=1))
    assert (
        found["val/classes_pixels"] == 2
    )  # levels 0, 1, 2 for classes 1, 2, 3: level 0 looks like class 1 too
    assert json.loads(Path("protocol.json").read_text())["fidelity"]["labels"] is not None


def test_labels_are_drawn_from_all_of_the_data():
    class Asked(Painter):
        def sample(self, n, *, y, generator=None):
            asked.append(y)
            return super().sample(n, y=y, generator=generator)

    asked, source = [], squares(600).examples()
    rows = source["y"].argsort()  # the first 200 are of class 0
    data = Given(SPEC, source["x"][rows], source["y"][rows], batch_size=200)
    run(Asked(), data, 1, small(n_fake=64, extractor="pixels"), every=1)
    counts = torch.cat(asked).bincount(minlength=3)
    assert counts.sum() == 64 and stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_unlabelled_data_have_no_classes():
    spec = type(SPEC)((1, 4, 4), 5, 0, "plain")
    found = values(
        run(Free(spec), Given(spec, squares().examples()["x"], batch_size=8), 1, small(), every=1)
    )
    assert "val/fid_plainnet" in found and not any(
        "/is_" in k or "/classes_" in k or "/am_" in k for k in found
    )


def test_only_inception_has_the_plain_names(monkeypatch):
    class Stub(extractors.Inception):
        def __init__(self, path=None, download=False):
            torch.nn.Module.__init__(self)

        def forward(self, x, spec):
            p = torch.full((len(x), 1008), 1 / 1008)
            return torch.cat([x.flatten(1), torch.zeros(len(x), 2032)], 1), p

    monkeypatch.setattr(extractors, "Inception", Stub)
    Path("weights.pth").touch()
    monkeypatch.setenv("ZOO_INCEPTION", "weights.pth")
    found = values(run(Free(), squares(), 1, small(extractor="inception", pixels=False), every=1))
    assert set(found) == {
        f"val/{k}" for k in ("fid", "kid", "is", "precision", "recall", "density", "coverage")
    }


def test_protocol_says_how_the_numbers_were_measured():
    run(Pair(SPEC), squares(), 1, small(n_real=45, reference="val", k=4), EMA(decay=0.9), every=1)
    said = json.loads(Path("protocol.json").read_text())["fidelity"]
    assert (said["reference"], said["n_real"], said["n_fake"], said["data"]) == (
        "val",
        45,
        70,
        "squares 4x4",
    )
    assert said["quantised_to_levels"] == 5 and said["precision_recall"] == {"n": 40, "k": 4}
    assert said["weights"]["ema"]["decay"] == 0.9 and said["weights"]["ema"]["player"] == "g"
    assert set(said["extractors"]) == {"squaresnet", "pixels"}
    assert all(len(e["weights"]) == 16 and e["resize"] for e in said["extractors"].values())
    assert set(said["versions"]) >= {"torch", "torchmetrics", "torch-fidelity", "zoo"}
    assert said["machine"] == machine()
    run(Pair(SPEC), squares(), 1, small(), every=1)
    assert json.loads(Path("protocol.json").read_text())["fidelity"]["weights"] == "raw"


class Parted(Given):
    """Squares whose held-out images are every other row of the training images, mislabelled."""

    def load(self):
        splits = super().load()
        held_out = {k: v[::2].clone() for k, v in splits["train"].items()}
        held_out["x"] = torch.where(held_out["x"] == 3, 1.0, held_out["x"])  # a third of them
        return {**splits, "val": held_out}


def test_protocol_says_what_held_out_images_score_and_how_often_their_class_is_found():
    source = squares().examples()
    data = Parted(SPEC, source["x"], source["y"], batch_size=8)
    run(Free(), data, 1, small(), every=1)
    said = json.loads(Path("protocol.json").read_text())["fidelity"]
    held_out, net = data.examples(split="val"), Pixels(SPEC, source["x"], source["y"])
    (real, _), (fake, p) = net(source["x"], SPEC), net(held_out["x"], SPEC)
    expected = dict(prdc(real[:25], fake, 3))  # as many of either kind
    apart = (real.mean(0) - fake.mean(0)).square().sum()  # constant images: the covariances are
    expected["fid"] = apart + (real.std(0).norm() - fake.std(0).norm()).square()  # of one matrix
    expected["is"] = inception_score(p, 1)[0]
    assert (said["held_out"]["split"], said["held_out"]["n"]) == ("val", 25)
    for name, value in expected.items():
        found = said["held_out"]["scores"][f"{name}_pixels"]
        assert found == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert {k.split("_")[-1] for k in said["held_out"]["scores"]} == {"pixels", "squaresnet"}
    wrong = sum(range(50)[i] % 3 == 2 for i in range(0, 50, 2))  # class 2 looks like class 0
    assert said["extractors"]["pixels"]["held_out_accuracy"] == pytest.approx(1 - wrong / 25)
    assert 0 <= said["extractors"]["squaresnet"]["held_out_accuracy"] <= 1


def test_the_reference_is_the_split_that_was_asked_for_and_its_rows_are_counted():
    source = squares().examples()
    data = Parted(SPEC, source["x"], source["y"], batch_size=8)
    options = {"extractor": "pixels", "reference": "val", "n_real": 45}
    found = values(run(Free(), data, 1, small(**options), every=1))
    unit = Pixels(SPEC, source["x"], source["y"])
    real, fake = (unit(x, SPEC)[0] for x in (data.examples(split="val")["x"], draw(Free(), 70, 0)))
    fid = FrechetDistance(16)
    fid.update(real, real=True)
    fid.update(fake)
    assert found["val/fid_pixels"] == pytest.approx(float(fid.compute()), rel=1e-5)
    assert json.loads(Path("protocol.json").read_text())["fidelity"]["n_real"] == 25


def test_held_out_images_leave_no_trace_in_the_scores_and_are_never_the_reference():
    data = squares()
    found = [values(run(Free(), data, 1, small(n_real=45, reference="val"), every=1))]
    said = json.loads(Path("protocol.json").read_text())["fidelity"]
    assert said["held_out"]["split"] == "test"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fidelity, "_measured", lambda self, *a: {})
        found.append(values(run(Free(), data, 1, small(n_real=45, reference="val"), every=1)))
    assert found[0] == found[1]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_classifier_that_is_seldom_right_is_said_in_one_line(labelled, caplog):
    class Renamed(Given):
        """Held-out images whose classes are one further."""

        def load(self):
            splits = super().load()
            moved = {k: (v + 1) % 3 if k == "y" else v for k, v in splits["train"].items()}
            return {**splits, "val": moved}

    source = squares().examples()
    spec = SPEC if labelled else type(SPEC)(SPEC.shape, 5, 0, "squares")
    renamed = Renamed(spec, source["x"], *([source["y"]] if labelled else []), batch_size=8)
    accuracies = []
    for data in (squares(), renamed):
        run(Free(data.spec), data, 2, small(extractor="pixels"), every=1)
        about = json.loads(Path("protocol.json").read_text())["fidelity"]["extractors"]
        accuracies.append(about["pixels"]["held_out_accuracy"])
    said = [r for r in caplog.messages if "mean little" in r]
    assert accuracies == [1, 0 if labelled else None] and len(said) == labelled
    assert all("pixels classifies 0% of held-out images" in r and "\n" not in r for r in said)


def test_protocol_reaches_the_config_of_a_wandb_run():
    from callbacks.loggers import WandbLogger

    class Both(Free):
        entry = type(Free.entry)(
            **{
                **vars(Free.entry),
                "can": frozenset({"sample", "log_prob"}),
                "likelihood": "exact_mass",
            }
        )
        log_prob = Gauss.log_prob
        m = 0.0

    logger = WandbLogger(".")
    run(Both(), squares(), 1, small(), BitsPerDim(), every=1, logger=logger)
    said = dict(logger.experiment.config)["protocol"]
    logger.experiment.finish()
    assert said["likelihood_kind"] == "exact_mass" and said["fidelity"]["n_fake"] == 70


def test_models_that_cannot_sample_and_vectors_are_left_alone():
    for model, data in ((Gauss(), squares()), (Free(POINTS), Given(POINTS, torch.randn(30, 2)))):
        assert not values(run(model, data, 1, small(), every=1))


def test_a_long_evaluation_has_a_bar_and_a_short_one_has_none(monkeypatch, capfd):
    monkeypatch.setenv("ZOO_CACHE", str(Path("kept").resolve()))
    run(Free(), squares(), 1, small(), every=1)
    capfd.readouterr()
    run(Free(), squares(), 1, small(), every=1)
    assert "fidelity, samples" not in capfd.readouterr().err
    monkeypatch.setattr("callbacks.fidelity.PATIENCE", 0.0)
    run(Free(), squares(), 1, small(), every=1)
    assert "fidelity, samples" in capfd.readouterr().err


def test_missing_inception_weights_end_a_run_before_its_first_step(tmp_path):
    model = Free()
    with pytest.raises(FileNotFoundError, match=r"put weights-.* choose extractor=auto"):
        run(model, squares(), 3, small(extractor="inception"), every=3)
    assert not model.terms


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_few_images_are_scored_by_what_so_few_allow(n, caplog):
    x = torch.arange(n)[:, None, None, None].expand(n, *SPEC.shape) * 0.5
    data = Given(type(SPEC)((1, 4, 4), None, 0, "few"), x.clone(), batch_size=1)
    fidelity = small(n_fake=30, parzen=True)
    trainer = run(Pair(data.spec), data, 2, fidelity, every=1)
    found = values(trainer)
    assert trainer.global_step == 2 and all(math.isfinite(v) for v in found.values())
    for names, least in (("fid kid", 2), ("precision recall density coverage", 4)):
        for name in names.split():
            assert (f"val/{name}_pixels" in found) == (n >= least), name
            said = [r for r in caplog.messages if f"val/{name}_pixels" in r]
            assert len(said) == (n < least), said  # once, in two validations
            assert all("left out: " in r and "\n" not in r for r in said)
    assert ("val/fid_fewnet" in found) == (n >= 2)
    assert ("val/parzen_nats" in found) == (n >= 2)
    assert any("scores by auto left out" in r for r in caplog.messages) == (n == 1)


def test_images_all_alike_give_no_score_that_is_not_a_number_and_no_network(caplog, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(Path("kept").resolve()))
    data = Given(SPEC, torch.zeros(40, *SPEC.shape), torch.arange(40) % 3, batch_size=8)

    class Black(Free):
        def sample(self, n, *, generator=None):
            return torch.zeros(n, *self.spec.shape)

    found = values(run(Black(), data, 2, small(), Memorisation(n=4, n_fake=20), every=1))
    assert all(math.isfinite(v) for v in found.values())
    assert found["val/fid_pixels"] == pytest.approx(0) and found["val/precision_pixels"] == 1
    assert found["val/nn_ratio_pixels"] == 1 and found["val/nn_auc_pixels"] == 0.5
    assert not [*Path("kept").glob("*")] and not any("squaresnet" in k for k in found)
    assert sum("the training images (40) are all alike" in r for r in caplog.messages) == 2


def test_images_that_repeat_make_a_perfect_model_perfect():
    class Perfect(Free):
        def sample(self, n, *, generator=None):
            level = torch.randint(1, 4, (n, 1, 1, 1), generator=generator)
            return level.expand(n, *self.spec.shape).float()

    # 150 squares of three kinds, and blocks of 64, 64 and 22 samples
    options = {"n_fake": 150, "precision_recall_n": 150}
    found = values(run(Perfect(), squares(150), 1, small(**options), every=1))
    for space in ("pixels", "squaresnet"):
        for name in ("precision", "recall", "coverage"):
            assert found[f"val/{name}_{space}"] == 1, (name, space)
        assert found[f"val/density_{space}"] == pytest.approx(1, abs=0.2)


def test_impossible_options_are_refused():
    for options in (
        {"n_fake": 1},
        {"precision_recall_n": 3},
        {"k": 0},
        {"extractor": "vgg"},
        {"n_real": 2},
    ):
        with pytest.raises(ValueError, match="fidelity"):
            Fidelity(**options)

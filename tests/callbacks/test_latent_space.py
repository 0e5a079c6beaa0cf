"""At the end of a run come the samples' nearest training images and the pictures of the latent
space, for the models that have them.
"""

from pathlib import Path

import pytest
import torch

from callbacks import LatentSpace, Memorisation
from tests.callbacks.fakes import POINTS, Painter, Pair, Recorder, Witness, run
from tests.show.support import shows
from tests.support import Given
from zoo.core import DataSpec
from zoo.data.digits import Digits
from zoo.gan.dcgan import DCGAN
from zoo.show.codes import interpolation, manifold_picture, traversals
from zoo.variational.categorical_vae import CategoricalVAE
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 8, 8), 17, 10, "digits 8x8")


def names(pattern):
    return sorted(p.name for p in Path("samples").glob(pattern))


def test_the_memorisation_panel_comes_with_the_last_validation_only():
    logger, data = Recorder(), Digits()
    run(
        Pair(data.spec),
        data,
        4,
        Memorisation(n=4, n_fake=20, extractor="pixels"),
        logger=logger,
        every=2,
    )
    assert names("*.png") == ["neighbours_000004.png"] and [key for _, key, _ in logger.images] == [
        "neighbours"
    ]
    found = {k for _, metrics in logger.metrics for k in metrics if "nn_" in k}
    assert found == {"val/nn_ratio_pixels", "val/nn_rate_pixels", "val/nn_auc_pixels"}
    values = {k: v for _, metrics in logger.metrics for k, v in metrics.items()}
    assert (
        values["val/nn_ratio_pixels"] > 1.5 and values["val/nn_rate_pixels"] == 0
    )  # uniform noise is near to no digit


def test_a_run_without_a_validation_has_its_panel_too():
    logger, data = Recorder(), Digits()
    run(
        Pair(data.spec),
        data,
        3,
        Memorisation(n=4, n_fake=20, extractor="pixels"),
        logger=logger,
        limit_val_batches=0,
    )
    assert names("*.png") == ["neighbours_000003.png"]
    assert [step for step, metrics in logger.metrics if "val/nn_ratio_pixels" in metrics] == [3]


def test_a_model_that_copies_is_found_out():
    class Copier(Pair):
        def sample(self, n, *, generator=None):
            return Digits().examples(64)["x"][torch.randint(64, (n,), generator=generator)]

    logger, data = Recorder(), Digits()
    run(
        Copier(data.spec),
        data,
        1,
        Memorisation(n=4, n_fake=40, extractor="pixels"),
        logger=logger,
        every=1,
    )
    values = {k: v for _, metrics in logger.metrics for k, v in metrics.items()}
    assert values["val/nn_ratio_pixels"] == 0 and values["val/nn_rate_pixels"] == 1


def test_no_panel_for_vectors_or_where_it_is_switched_off():
    run(Painter(POINTS), Given(POINTS, torch.randn(20, 2)), 2, Memorisation(n=2, n_fake=10))
    run(Pair(SPEC), Digits(size=8), 2, Memorisation(enabled=False))
    assert not Path("samples").exists()


def test_pictures_of_the_latent_space_come_at_the_end_and_leave_no_trace():
    data, logger = Digits(), Recorder()
    callback = LatentSpace()
    witness = Witness(callback)
    run(VAE(data.spec, latent=2, width=8), data, 2, callback, logger=logger)
    kinds = [
        f"interpolation_{of}_{kind}"
        for of in ("images", "samples")
        for kind in ("linear", "spherical")
    ]
    assert names("*.png") == [f"{name}_000002.png" for name in (*kinds, "manifold", "traversals")]
    assert (
        sorted(key for _, key, _ in logger.images) == [*kinds, "manifold", "traversals"]
        and witness.calls
    )


def test_a_generator_shows_paths_between_samples_and_a_model_without_codes_nothing():
    data = Digits()
    run(DCGAN(data.spec, width=8), data, 1, LatentSpace())
    assert names("*.png") == ["interpolation_samples_linear_000001.png", "traversals_000001.png"]
    for path in Path("samples").iterdir():
        path.unlink()
    run(Pair(data.spec), data, 1, LatentSpace())
    assert names("*.png") == []


def test_rows_of_an_interpolation_run_between_the_images():
    data = Digits()
    model = VAE(data.spec, latent=3, width=8).eval()
    picture = interpolation(model, data, "images", n=2, frames=3)
    x = data.examples(4, "val")["x"]
    a, b = x.chunk(2)
    middle = model.interpolate(a, b, frames=3)
    want = torch.cat([a[:, None], middle, b[:, None]], 1).flatten(0, 1)
    assert all(shows(picture, i, want[i].detach(), 16) for i in range(10))


def test_traversals_say_which_dimensions_are_unused():
    data = Digits()
    model = VAE(data.spec, latent=2, width=8)
    for p in model.encoder.parameters():
        p.data.zero_()

    def unused():
        return [w for w, _ in traversals(model, data, n=1).info["texts"] if "unused" in w]

    assert unused() == ["z0 · KL 0.00, unused", "z1 · KL 0.00, unused"]
    model.encoder[-1].bias.data[:] = torch.tensor([3.0, 0, 0, 0])
    assert unused() == ["z1 · KL 0.00, unused"]


def test_discrete_variables_take_all_their_values():
    data = Digits(binarize="threshold")
    model = CategoricalVAE(data.spec, variables=3, classes=5, width=8).eval()
    z = model.encode(data.examples(1, "val")["x"])
    moved = model.switched(z, 1).unflatten(2, (3, 5))
    assert torch.equal(moved[0, :, 1], torch.eye(5)) and torch.equal(
        moved[0, :, [0, 2]], z.view(3, 5)[[0, 2]].expand(5, 2, 5)
    )
    picture = traversals(model, data, n=1)
    assert len(picture.info["cells"]) == 3 * 5
    assert [w for w, _ in picture.info["texts"] if w.isdigit()] == ["0", "1", "2", "3", "4"]


def test_the_manifold_needs_two_dimensions():
    model = VAE(SPEC, latent=2, width=8)
    assert len(manifold_picture(model, 4).info["cells"]) == 16
    with pytest.raises(ValueError, match=r"has 3; train one with --model.latent=2"):
        manifold_picture(VAE(SPEC, latent=3, width=8))

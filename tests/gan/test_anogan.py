"""AnoGAN is AnoGAN: the two losses of the mapping, the search that moves codes alone, the score."""

import pytest
import torch
from torch.nn import functional as F

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.anogan import AnoGAN, mixture

SPEC = DataSpec((1, 8, 8), 17, 4)


def make(**options) -> AnoGAN:
    torch.manual_seed(0)
    model = AnoGAN(SPEC, **{"latent": 4, "width": 8, "gamma": 10, **options}).eval()
    for p in model.g.parameters():  # far enough from its grey start to be searched
        p.data.mul_(8)
    return model


def images(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()


def codes(n: int, model: AnoGAN) -> torch.Tensor:
    return 2 * torch.rand(n, model.latent, generator=torch.Generator().manual_seed(2)) - 1


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_search_in_training_mode_changes_no_weight_buffer_mode_or_gradient(norm):
    model = make(norm=norm).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    scores = model.score(images())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert torch.equal(scores, model.eval().score(images()))


def test_codes_are_reached_through_batch_norms_fixed_statistics():
    model = make(norm="batch", gamma=30)
    v, z = model.scaled(images()), codes(5, model).requires_grad_()
    r, d = model.mapping_losses(v, z)
    whole = torch.autograd.grad((r + d).sum(), z)[0]
    one = codes(5, model)[:1].requires_grad_()
    alone = torch.autograd.grad(sum(model.mapping_losses(v[:1], one)).sum(), one)[0]
    torch.testing.assert_close(whole[:1], alone, rtol=1e-4, atol=1e-4)
    assert whole.abs().min() > 0


def test_images_of_known_codes_are_found_again():
    model = make(lam=0.0, restarts=3, gamma=100, search_lr=0.1).double()
    z = codes(10, model).double()
    v = model.g(z).detach()
    start = model.mapping_losses(v, model.starts(10)[0])[0]
    model.scaled = lambda x: x  # G's images as they are, not rounded to levels
    left = model.scores(v)["residual"]
    assert (left < 0.05 * start).double().mean() >= 0.8


def test_the_losses_are_sums_of_absolute_differences_of_pixels_and_of_ds_last_hidden_layer():
    model = make()
    x, z = images(), codes(5, model)
    r, d = model.mapping_losses(model.scaled(x), z)
    v, made = 2 * x / 16 - 1, model.g(z)
    hidden = [v, made]
    for stage in model.d.net.stages:
        hidden = [stage(h) for h in hidden]
    for i in range(5):
        assert r[i].item() == pytest.approx(F.l1_loss(made[i], v[i], reduction="sum").item())
        apart = F.l1_loss(hidden[1][i], hidden[0][i], reduction="sum").item()
        assert d[i].item() == pytest.approx(apart, rel=1e-5)


def test_the_older_discrimination_loss_is_the_cross_entropy_of_ds_verdict_on_gz():
    model = make(measure="sigmoid")
    z = codes(5, model)
    _, d = model.mapping_losses(model.scaled(images()), z)
    s = model.d(model.g(z))
    torch.testing.assert_close(
        d, F.binary_cross_entropy_with_logits(s, torch.ones(5), reduction="none")
    )


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_lambda_mixes_what_is_searched_and_what_is_scored(lam):
    model = make(lam=lam)
    x = images()
    found, z = model.scores(x), model.search(x)
    r, d = (v.detach() for v in model.mapping_losses(model.scaled(x), z))
    torch.testing.assert_close(found["residual"], r)
    torch.testing.assert_close(found["discrimination"], d)
    torch.testing.assert_close(found["score"], r * (1 - lam) + d * lam)
    assert torch.equal(model.score(x), found["score"])
    assert mixture(torch.ones(1), torch.full((1,), 3.0), lam).item() == pytest.approx(1 + 2 * lam)
    other = make(lam=1 - lam if lam != 0.3 else 0.9)
    assert not torch.allclose(other.search(x), z)


def test_a_search_takes_the_steps_the_rate_and_the_starts_that_are_asked_for():
    model = make(gamma=0, restarts=1)
    starts = model.starts(5)
    assert starts.shape == (1, 5, 4) and torch.equal(starts[0, 0], starts[0, 4])
    assert starts.abs().max() <= 1 and not torch.equal(make(prior="normal").starts(5), starts)
    assert torch.equal(model.search(images()), starts[0])
    one = make(gamma=1, restarts=1, search_lr=0.03).search(images())
    torch.testing.assert_close((one - starts[0]).abs(), torch.full((5, 4), 0.03))
    assert len(make(restarts=3).starts(2)) == 3


def test_more_restarts_never_end_worse():
    x = images()
    few, many = (make(gamma=15, restarts=n, lam=0.2).score(x) for n in (1, 4))
    assert (many <= few + 1e-4).all() and (many < few - 1e-3).any()


def test_the_residual_is_the_distance_to_the_reconstruction_in_levels():
    model, x = make(gamma=10), images()
    made, apart = model.residual(x)
    assert torch.equal(made, model.from_codes(model.search(x)))
    assert torch.equal(made, made.round()) and made.min() >= 0 and made.max() <= 16
    assert torch.equal(apart, (x - made).abs()) and torch.equal(model.reconstruct(x), made)


def test_labels_are_remembered_and_nothing_else_reads_them():
    model = make(gamma=5)
    x = images()
    before = model.score(x)
    model.initialise_from(Batch({"x": x, "y": torch.tensor([1, 3, 1, 3, 3])}, 5))
    assert model.seen.tolist() == [False, True, False, True]
    assert torch.equal(model.score(x), before)
    assert all(set(p.reads) <= {"x"} for p in model.phases())


def test_the_games_losses_are_those_of_dcgan():
    model = make(k=2)
    model.noise = Noise(1, "test")
    x, z = images(), codes(5, model)
    model.codes = lambda n: z[:n]
    real, fake = model.d(model.scaled(x)), model.d(model.g(z))
    bce = F.binary_cross_entropy_with_logits
    d = bce(real, torch.ones(5)) + bce(fake, torch.zeros(5))
    batch = Batch({"x": x}, 5)
    torch.testing.assert_close(model.discriminator_loss(batch)["loss"], d)
    loss = model.generator_loss(Batch({}, 5))["loss"]
    torch.testing.assert_close(loss, bce(fake, torch.ones(5)))
    assert [(p.player, p.repeat) for p in model.phases()] == [("d", 2), ("g", 1)]
    model.discriminator_loss(batch)["loss"].backward()
    assert all(p.grad is None for p in model.g.parameters())

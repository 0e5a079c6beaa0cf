"""GoGAN is GoGAN: the margins of the ranking, stages that copy and freeze, WGAN at the limit,
completion by search.
"""

import pytest
import torch
from torch import nn

from tests.gan.critics import assert_networks_and_codes_as_asked
from tests.support import Given, fit
from zoo.check.processes import ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.toy2d import Toy2D
from zoo.gan.gogan import GoGAN, hinge
from zoo.metrics.modes import mode_coverage

PLANE, IMAGES = DataSpec((2,)), DataSpec((1, 8, 8), 17)


class Scores(nn.Module):
    """A critic that says what it is told, a number or one a row for each set of examples in turn,
    and whose gradient can be asked for.
    """

    def __init__(self, *scores: float | list[float]) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.scores[self.calls - 1].expand(len(x))


def in_stage_two(**options) -> GoGAN:
    torch.manual_seed(0)
    model = GoGAN(PLANE, **{"width": 8, **options})
    model.stage += 1
    for p in model.past.parameters():
        p.data += 0.3 * torch.randn_like(p)  # the stages differ
    return model


def data(batch_size: int = 8) -> Given:
    return Given(
        PLANE,
        torch.randn(400, 2, generator=torch.Generator().manual_seed(0)),
        batch_size=batch_size,
    )


def gradients(model: GoGAN, terms: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [*torch.autograd.grad(terms["loss"], [*model.d.net.parameters()])]


@pytest.mark.parametrize(
    ("real", "new", "old", "loss"),
    [
        (0.5, 0.25, 0.0, 0.0),
        (0.5, 0.0, 0.25, 0.5 * 0.25),
        (0.5, 0.375, 0.0, 0.125),
        (0.0, 0.0, 0.0, 0.25 + 0.5 * 0.5),
        (2.0, -1.0, 0.75, 0.0),
    ],
)
def test_the_ranking_costs_what_its_margins_lack(real, new, old, loss):
    model = in_stage_two(epsilon=0.25)
    model.d.net = Scores(real, new, old)
    terms = model.discriminator_loss(Batch({"x": torch.randn(5, 2)}))
    assert terms["loss"].item() == loss  # all of these are sums of powers of two
    (slope,) = torch.autograd.grad(terms["loss"], model.d.net.scores)
    assert (slope.abs().max().item() > 0) == (loss > 0)


@pytest.mark.parametrize("stage", [1, 2])
def test_margins_are_those_of_pairs_of_which_some_keep_theirs(stage):
    model = in_stage_two()
    model.stage.fill_(stage)
    real, new, old = [2.0, -1.0, 0.5, 3.0], [0.5, 0.0, -2.0, 2.5], [1.0, -4.0, -2.0, 0.5]
    model.d.net = Scores(real, new, old)
    terms = model.discriminator_loss(Batch({"x": torch.randn(4, 2)}))
    lacks = (
        [0.0, 2.0, 0.0, 0.5],
        [1.0, 0.0, 0.0, 0.0],
    )  # new + 1 - real, old + 2 - real, where positive
    assert terms["loss"].item() == sum(lacks[0]) / 4 + (
        0.5 * sum(lacks[1]) / 4 if stage == 2 else 0
    )
    assert terms["active_new"] == 0.5 and (stage == 1 or terms["active_old"] == 0.25)
    (slope,) = torch.autograd.grad(terms["loss"], model.d.net.scores)
    in_new, in_old = (
        torch.tensor([0.0, 1.0, 0.0, 1.0]),
        torch.tensor([0.5 if stage == 2 else 0.0, 0.0, 0.0, 0.0]),
    )
    assert torch.equal(4 * slope, torch.stack([-in_new - in_old, in_new, in_old]))


def test_the_hinge_has_no_gradient_once_every_pair_keeps_its_margin_and_slope_one_before():
    low, high = (
        torch.tensor([0.0, 0.0, 0.0], requires_grad=True),
        torch.tensor([1.5, 0.5, -4.0], requires_grad=True),
    )
    slopes = torch.autograd.grad(hinge(low, high, 1.0).sum(), [low, high])
    assert slopes[0].tolist() == [0, 1, 1] and slopes[1].tolist() == [0, -1, -1]
    assert hinge(low, high, 1.0).tolist() == [0, 0.5, 5]


def test_stage_one_has_no_old_examples_and_pairs_each_example_with_one_code():
    model, x = GoGAN(PLANE, width=8), torch.randn(6, 2)
    model.noise = Noise(3, "test")
    loss = model.discriminator_loss(Batch({"x": x}))["loss"]
    fake = model.g(Noise(3, "test").normal(6, 2))
    each = [max(0.0, (model.d(fake)[i] + 1 - model.d(x)[i]).item()) for i in range(6)]
    assert loss.item() == pytest.approx(sum(each) / 6, abs=1e-6) and min(each) > 0


def test_both_generators_of_a_stage_are_given_the_same_codes_and_get_no_gradient():
    model, codes = in_stage_two(), []
    for net in (model.g, model.past[0].g):
        net.register_forward_pre_hook(lambda _, args: codes.append(args[0].clone()))
    model.discriminator_loss(Batch({"x": torch.randn(6, 2)}))["loss"].backward()
    assert len(codes) == 2 and torch.equal(*codes)
    assert all(p.grad is None for net in (model.g, model.past) for p in net.parameters())


def test_without_the_old_examples_and_with_an_endless_margin_it_is_wgan():
    model, x = (
        in_stage_two(epsilon=1e6, lambda_old=0.0).double(),
        torch.randn(32, 2, dtype=torch.float64),
    )
    model.noise = Noise(3, "test", dtype=torch.float64)
    found = gradients(model, model.discriminator_loss(Batch({"x": x})))
    fake = model.g(Noise(3, "test", dtype=torch.float64).normal(32, 2)).detach()
    wgan = model.d(fake).mean() - model.d(x).mean()
    for a, b in zip(found, gradients(model, {"loss": wgan}), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    model.noise = Noise(3, "test", dtype=torch.float64)
    torch.testing.assert_close(model.generator_loss(Batch({}, 32))["loss"], -model.d(fake).mean())


def test_old_scores_of_the_old_critic_give_the_new_one_no_gradient():
    x = torch.randn(32, 2)
    losses = {}
    for scorer in ("new", "old"):
        model = in_stage_two(rank_scorer=scorer, lambda_new=0.0, lambda_old=1.0, epsilon=10.0)
        model.noise = Noise(3, "test")
        losses[scorer] = gradients(model, model.discriminator_loss(Batch({"x": x})))
    real = torch.autograd.grad(-model.d(x).mean(), [*model.d.net.parameters()])
    for old, new, alone in zip(losses["old"], losses["new"], real, strict=True):
        torch.testing.assert_close(old, alone)
        assert not torch.allclose(new, alone)


@pytest.mark.parametrize("separate", [True, False])
def test_old_examples_are_scored_by_the_critic_that_is_asked(separate):
    x = torch.randn(32, 2)
    for scorer in ("new", "old"):
        loop = {"separate_batches": separate}
        model = in_stage_two(rank_scorer=scorer, lambda_new=0.7, lambda_old=0.2, loop=loop)
        model.noise = Noise(3, "test")
        terms = model.discriminator_loss(Batch({"x": x}))
        z = Noise(3, "test").normal(32, 2)
        real, new = model.d.net(x), model.d.net(model.g(z))
        critic = model.d.net if scorer == "new" else model.past[0]["d"]
        old = critic(model.past[0]["g"](z))
        missing, behind = (new + 1 - real).clamp(min=0), (old + 2 - real).clamp(min=0)
        torch.testing.assert_close(terms["loss"], 0.7 * missing.mean() + 0.2 * behind.mean())
        assert terms["rank_old"] == (new > old).float().mean()
        torch.testing.assert_close(terms["w_est"], real.mean() - new.mean())


def test_rmsprop_has_the_rates_and_the_decay_that_are_asked():
    made = GoGAN(PLANE, lr_d=0.2, lr_g=0.1, alpha=0.5).optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(type(o) is torch.optim.RMSprop for o in made.values())
    assert all(o.defaults["alpha"] == 0.5 for o in made.values())


def test_the_networks_and_codes_are_those_that_are_asked_for():
    assert_networks_and_codes_as_asked(GoGAN)


def test_completion_prefers_what_the_critic_likes_where_nothing_is_known():
    torch.manual_seed(0)
    model = GoGAN(PLANE, width=8).eval()
    x, known = torch.zeros(6, 2), torch.zeros(6, 2, dtype=torch.bool)
    draw = {"generator": torch.Generator().manual_seed(1)}
    made = model.inpaint(x, known, **draw, steps=50, realism=1.0)
    start = model.sample(6, generator=torch.Generator().manual_seed(1))
    assert (model.d(made) > model.d(start)).all()


def test_the_second_stage_starts_as_a_copy_and_leaves_the_first_alone():
    model, first = GoGAN(PLANE, width=8, stage_steps=3), {}
    z = torch.randn(9, 2)

    def begin() -> None:
        first.update({n: v.clone() for n, v in model.past[0].state_dict().items()})
        for part in ("g", "d"):
            for a, b in zip(
                model.of_stage(1, part).parameters(),
                model.of_stage(2, part).parameters(),
                strict=True,
            ):
                assert torch.equal(a, b)
        assert torch.equal(model.of_stage(1)(z), model.of_stage(2)(z))

    model.begin_stage = begin
    fit(model, data(), 23)
    assert first and all(torch.equal(v, first[n]) for n, v in model.past[0].state_dict().items())
    assert not torch.equal(model.of_stage(1)(z), model.of_stage(2)(z))
    held = {
        id(p)
        for optimiser in model.trainer.optimizers
        for group in optimiser.param_groups
        for p in group["params"]
    }
    assert not held & {id(p) for p in model.past.parameters()}


@pytest.mark.parametrize("at", [3, 5])
def test_it_resumes_bit_for_bit_in_the_second_stage(at, tmp_path):
    straight, first, rest = (GoGAN(PLANE, width=8, stage_steps=3) for _ in range(3))
    first.load_state_dict(straight.state_dict())
    fit(straight, data(), 8)
    fit(first, data(), at).save_checkpoint(tmp_path / "at.ckpt")
    fit(rest, data(), 8, ckpt_path=tmp_path / "at.ckpt")
    assert int(rest.stage) == 2
    assert all(torch.equal(v, rest.state_dict()[n]) for n, v in straight.state_dict().items())


def test_the_critic_is_clamped_after_each_of_its_steps_in_every_stage():
    model, largest = GoGAN(PLANE, width=8, c=0.02, k=2, stage_steps=2), []
    after = model.after_step
    model.after_step = lambda player: (
        after(player),
        largest.append(max(p.abs().max().item() for p in model.d.net.parameters())),
    )
    fit(model, data(), 4)
    assert len(largest) == 12 and max(largest) <= torch.tensor(0.02).item()
    assert max(p.abs().max().item() for p in model.g.parameters()) > 0.02


def test_samples_can_be_asked_of_any_stage():
    model, g = in_stage_two().eval(), torch.Generator()
    of = {stage: model.sample(7, generator=g.manual_seed(1), stage=stage) for stage in (-1, 1, 2)}
    assert torch.equal(of[-1], of[2]) and torch.equal(
        of[-1], model.sample(7, generator=g.manual_seed(1))
    )
    torch.testing.assert_close(
        of[1], model.past[0].g(torch.randn(7, 2, generator=g.manual_seed(1)))
    )
    assert not torch.equal(of[1], of[2])


def test_held_out_ranks_are_shares_of_pairs():
    model, x = in_stage_two().eval(), torch.randn(50, 2)
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))
    new, old = (
        model.sample(50, generator=torch.Generator().manual_seed(1), stage=s) for s in (2, 1)
    )
    d = model.d.net
    assert values["rank_new"].tolist() == (d(x) > d(new)).float().tolist()
    assert values["rank_old"].tolist() == (d(new) > d(old)).float().tolist()
    torch.testing.assert_close(values["w_est"], d(x) - d(new))
    model.stage.fill_(1)
    assert "rank_old" not in model.evaluate(Batch({"x": x}))


def test_completion_finds_the_code_of_what_is_known_and_pastes_it():
    torch.manual_seed(0)
    model = GoGAN(IMAGES, latent=3, width=4).eval()
    for p in model.g.parameters():
        p.data *= 4  # its images differ
    truth = model.sample(6, generator=torch.Generator().manual_seed(5))
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, 2:6, 2:6] = False  # the centre quarter
    x = torch.where(known, truth, torch.zeros_like(truth))
    made = model.inpaint(x, known, generator=torch.Generator().manual_seed(1), realism=0.0)
    drawn = torch.where(known, x, model.sample(6, generator=torch.Generator().manual_seed(1)))
    errors = [(v - truth).abs().flatten(1).sum(1) for v in (made, drawn)]
    assert torch.equal(torch.where(known, made, 0), torch.where(known, truth, 0))
    assert errors[0].median() < 0.2 * errors[1].median()
    assert all(p.grad is None for p in model.parameters())
    alone = model.inpaint(x[2:3], known, generator=torch.Generator().manual_seed(1), steps=20)
    assert alone.shape == (1, 1, 8, 8) and torch.equal(alone, alone.round())


def test_options_without_a_meaning_are_refused():
    for bad in (
        {"epsilon": 0.0},
        {"c": 0.0},
        {"rank_scorer": "both"},
        {"stages": 0},
        {"lambda_old": -1.0},
    ):
        with pytest.raises(ValueError, match="got"):
            GoGAN(PLANE, **bad)
    with pytest.raises(ValueError, match=r"loop\.replay has no meaning in gogan"):
        GoGAN(PLANE, loop={"replay": 10})


@pytest.mark.slow
def test_the_second_stage_betters_the_first_on_the_ring():
    ring = Toy2D(batch_size=128)
    torch.manual_seed(0)
    model = GoGAN(ring.spec)
    fit(model, ring, 2600)
    x = [
        model.eval().sample(2500, generator=torch.Generator().manual_seed(0), stage=stage)
        for stage in (1, 2)
    ]
    first, second = (mode_coverage(v, ring.centres, 0.05) for v in x)
    assert first["modes"] >= 6 and second["hq"] > first["hq"]


@pytest.mark.ddp
def test_two_processes_train_both_stages_as_one_does():
    # small: of a unit that is on for all rows, RMSProp scales up mere rounding
    name = "gogan --model.stage_steps=2 --model.lr_d=0.00001"
    found = ddp_differences((name,))[name]
    assert not isinstance(found, str), found
    assert found[0] < 1e-12

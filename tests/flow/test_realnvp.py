"""RealNVP is RealNVP: masked affine couplings, squeezes, factored-out scales, and the logit."""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.check.likelihoods import assert_flow_inverts, assert_rows_do_not_talk, total_density
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import bits_per_dim
from zoo.data.toy2d import Toy2D
from zoo.flow.realnvp import Coupling, FlowBatchNorm, RealNVP, channel_mask, checkerboard

SPEC = DataSpec((1, 4, 4), 17)
VARIANTS = [{}, {"blocks": 1}, {"batch_norm": True}, {"blocks": 1, "batch_norm": True}]


def realnvp(spec: DataSpec = SPEC, seed: int = 0, **options) -> RealNVP:
    """With random weights and, where there are any, random running statistics."""
    torch.manual_seed(seed)
    model = RealNVP(spec, **{"width": 8, **options})
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    for m in model.modules():
        if isinstance(m, FlowBatchNorm):
            m.mean.normal_()
            m.var.uniform_(0.3, 3)
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.3, 3)
    return model.double().eval()


def images(n: int, spec: DataSpec = SPEC) -> torch.Tensor:
    return torch.randint(
        spec.levels, (n, *spec.shape), generator=torch.Generator().manual_seed(1)
    ).double()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_flow_inverts_and_its_log_det_is_autograds(options):
    model = realnvp(**options)
    assert_flow_inverts(model.forward_flow, model.inverse_flow, torch.randn(2, 1, 4, 4).double())


def test_flow_of_vectors_inverts_and_its_density_integrates_to_one():
    model = realnvp(DataSpec((5,)), couplings=4, batch_norm=True)
    assert_flow_inverts(model.forward_flow, model.inverse_flow, torch.randn(3, 5).double())
    plane = realnvp(DataSpec((2,)), couplings=4)
    assert plane.likelihood_kind == "exact_density"
    assert total_density(plane.log_prob, 2, half_width=12, points=801) == pytest.approx(1, abs=1e-3)


def test_checkerboard_and_channel_masks_are_the_papers():
    board = checkerboard(2, 4, 5, 0)
    assert board[0, 0, 0] == 1 and torch.equal(board[0], board[1]) and board.sum() == 20
    assert (board[:, 1:] + board[:, :-1] == 1).all() and (
        board[:, :, 1:] + board[:, :, :-1] == 1
    ).all()
    assert torch.equal(checkerboard(2, 4, 5, 1), 1 - board)
    assert torch.equal(channel_mask(4, 1, 1, True).flatten(), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    model = RealNVP(SPEC, width=4)
    masks = [[s.mask[0] for s in scale if isinstance(s, Coupling)] for scale in model.scales]
    kinds = [
        [(m[:, 0, 0] if len(m) > 1 else m[0, 0, :2]).tolist() for m in scale] for scale in masks
    ]
    first, second = [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]
    assert kinds[0] == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], first, second, first]
    assert len(kinds[1]) == 4 and model.sizes == [8] and model.top == (2, 2, 2)


@pytest.mark.parametrize("step", [0, 1, 4, 5])
def test_coupling_keeps_the_masked_half_and_reads_nothing_else(step):
    coupling = realnvp().scales[0][step]
    b = coupling.mask.bool()
    y = torch.randn(3, *b.shape[1:]).double()
    z, log_det = coupling(y)
    assert torch.equal(z[:, b[0]], y[:, b[0]]) and not torch.equal(z[:, ~b[0]], y[:, ~b[0]])
    other = torch.where(b, y, torch.randn_like(y))
    moved, same = coupling(other)
    assert torch.equal(same, log_det)  # s does not see the transformed half
    s, t = coupling.scale_shift(coupling.mask * other)
    torch.testing.assert_close(moved, torch.where(b, other, other * s.exp() + t))
    torch.testing.assert_close(z, torch.where(b, y, y * s.exp() + t))


def test_scale_is_bounded_by_gamma():
    coupling = realnvp().scales[0][0]
    coupling.gamma.data.fill_(0.7)
    for p in coupling.net.parameters():
        p.data.mul_(1e4)
    s, _ = coupling.scale_shift(torch.randn(8, 1, 4, 4).double())
    assert s.abs().max().item() == pytest.approx(0.7, abs=1e-6)


def test_every_level_returns_through_the_logit():
    model, x = realnvp(), torch.arange(17.0).repeat(16, 1).double()
    x = torch.cat([x.flatten(), torch.tensor([0.0, 16.0] * 8).double()]).view(-1, 1, 4, 4)
    assert torch.equal(model.reconstruct(x), x)
    assert torch.isfinite(model.log_prob(x)).all()


def test_another_alpha_is_used_both_ways():
    model = realnvp(alpha=0.2)
    y = torch.rand(3, 1, 4, 4).double()
    p = 0.2 + 0.6 * y
    torch.testing.assert_close(model.preprocess(y)[0], torch.logit(p))
    torch.testing.assert_close(model.postprocess(torch.logit(p)), y)


def test_couplings_take_turns_and_each_is_followed_by_its_normalisation():
    model = realnvp(DataSpec((1, 8, 8), 17), scales=3, batch_norm=True)
    for number, scale in enumerate(model.scales):
        steps = [s for s in scale if isinstance(s, Coupling | FlowBatchNorm)]
        assert [type(s) for s in steps] == [Coupling, FlowBatchNorm] * (len(steps) // 2)
        masks = [s.mask for s in steps[::2]]
        groups = [masks] if number == 2 else [masks[:3], masks[3:]]  # the second after the squeeze
        for group in groups:
            for a, b in zip(group[:-1], group[1:], strict=True):
                assert torch.equal(a + b, torch.ones_like(a))


def test_identity_flow_has_the_density_of_a_logit_normal():
    model = RealNVP(SPEC, width=4).double()
    y = torch.rand(3, 1, 4, 4).double() * 0.98 + 0.01
    p = 0.05 + 0.9 * y
    pieces = (
        torch.distributions.Normal(0, 1).log_prob(torch.logit(p))
        - torch.log(p * (1 - p))
        + math.log(0.9)
    )
    torch.testing.assert_close(model.log_density(y), pieces.flatten(1).sum(1))
    assert model.inverse_flow(torch.zeros(1, 16).double())[0].abs().max() == 0


@pytest.mark.parametrize("kind", ["checkerboard", "channel"])
def test_flow_batch_norm_log_det_is_autograds_for_frozen_statistics(kind):
    mask = checkerboard(2, 2, 2, 0) if kind == "checkerboard" else channel_mask(2, 2, 2, True)
    norm = FlowBatchNorm(mask).double().eval()
    norm.mean.normal_()
    norm.var.uniform_(0.2, 4)
    assert_flow_inverts(norm, norm.inverse, torch.randn(2, 2, 2, 2).double())
    positions = (1 - mask).sum((1, 2)).double()  # H·W/2 of each channel, or all of them and none
    expected = -0.5 * (positions * torch.log(norm.var.flatten() + 1e-4)).sum()
    torch.testing.assert_close(norm(torch.zeros(1, 2, 2, 2).double())[1][0], expected)


def test_flow_batch_norm_uses_batch_statistics_in_training_and_lets_gradients_through():
    mask = checkerboard(2, 4, 4, 1)
    norm = FlowBatchNorm(mask).double().train()
    y = (3 + 2 * torch.randn(64, 2, 4, 4).double()).requires_grad_()
    z, log_det = norm(y)
    moved = z[:, mask == 0].view(64, 2, 8)
    torch.testing.assert_close(moved.mean((0, 2)), torch.zeros(2).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        moved.var((0, 2), correction=0), torch.ones(2).double(), rtol=0, atol=1e-3
    )
    assert torch.equal(z[:, mask == 1], y[:, mask == 1])
    batch = y[:, mask == 0].view(64, 2, 8).var((0, 2), correction=0)
    torch.testing.assert_close(log_det[0], -0.5 * 8 * torch.log(batch + 1e-4).sum())
    assert torch.autograd.grad(log_det[0], y)[0].abs().max() > 0
    torch.testing.assert_close(norm.var.flatten(), 0.9 + 0.1 * batch.detach())


def test_factored_out_dimensions_touch_only_their_own_prior_term():
    model = realnvp()
    z, _ = model.forward_flow(torch.randn(2, 1, 4, 4).double())
    other = torch.cat([z[:, :8] + torch.randn(2, 8).double(), z[:, 8:]], 1)
    y, changed = model.inverse_flow(z)[0], model.inverse_flow(other)[0]
    assert ((y - changed).abs() > 1e-9).all()  # in the direction z -> y they change every pixel
    # y -> z: what happens after the split does not see them
    seen = []
    model.scales[1][0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    again = model.forward_flow(changed)[0]
    model.forward_flow(y)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(again[:, 8:], z[:, 8:], rtol=0, atol=1e-9)
    out = torch.autograd.functional.jacobian(
        lambda o: model.inverse_flow(torch.cat([o, z[:1, 8:]], 1))[0], z[:1, :8]
    )
    assert (out.abs().sum((0, 4, 5)) > 0).all()


def test_squeeze_counts_every_dimension_once():
    model = realnvp(DataSpec((3, 8, 8), 4), scales=3)
    z = model.forward_flow(torch.randn(2, 3, 8, 8).double())[0]
    assert z.shape == (2, 192) and model.sizes == [96, 48] and math.prod(model.top) == 48
    jacobian = torch.autograd.functional.jacobian(
        lambda v: model.forward_flow(v)[0], torch.randn(1, 3, 8, 8).double()
    )
    assert torch.linalg.matrix_rank(jacobian.view(192, 192)) == 192


def test_dequantised_bound_is_below_the_mass_and_masses_sum_to_one():
    spec = DataSpec((1, 1, 2), 3)
    model = realnvp(spec, scales=1)
    n = 60
    u = (torch.cartesian_prod(torch.arange(n), torch.arange(n)).double() + 0.5) / n
    total = 0.0
    for x in torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).double():
        with torch.no_grad():
            each = model.bound(x.view(1, 1, 1, 2).expand(n * n, 1, 1, 2), u.view(-1, 1, 1, 2))
        mass = (each.logsumexp(0) - math.log(n * n)).item()
        assert each.mean().item() < mass
        total += math.exp(mass)
    assert 0.5 < total <= 1 + 1e-4  # what falls below 0 or above 1 is lost


def test_bits_per_dim_is_the_sum_of_its_two_logged_parts():
    model, x = realnvp(), images(5)
    parts = model.evaluate(Batch({"x": x}))
    torch.testing.assert_close(
        parts["prior_bpd"] + parts["logdet_per_dim"], bits_per_dim(model.log_prob(x), 16)
    )


def test_more_draws_of_the_bound_have_the_same_mean():
    one, many = realnvp(draws=1), realnvp(draws=1000)
    x = images(1)
    rough = torch.stack(
        [one.log_prob(x, generator=torch.Generator().manual_seed(i)) for i in range(100)]
    )
    assert abs(rough.mean() - many.log_prob(x)) < 4 * (rough.std() / 10 + rough.std() / 30)


def test_penalty_is_part_of_the_loss_and_not_of_the_likelihood():
    model, free = realnvp(blocks=1, l2=0.1), realnvp(blocks=1)
    x = images(4)
    torch.testing.assert_close(model.log_prob(x), free.log_prob(x))
    penalised = [
        p for n, p in model.named_parameters() if n.endswith("gamma") or n.endswith("original0")
    ]
    assert len(penalised) > 10
    expected = free.loss(Batch({"x": x}))["loss"] + 0.1 * sum((p**2).sum() for p in penalised)
    torch.testing.assert_close(model.loss(Batch({"x": x}))["loss"], expected)


def test_interpolation_starts_and_ends_at_the_images_and_keeps_to_the_arc():
    model, a, b = realnvp(), images(2), images(4)[2:]
    path = model.interpolate(a, b, frames=5)
    assert (
        path.shape == (2, 5, 1, 4, 4) and torch.equal(path[:, 0], a) and torch.equal(path[:, -1], b)
    )
    za, zb = model.encode(a), model.encode(b)
    assert torch.equal(path[:, 2], model.decode((za + zb) / math.sqrt(2)))


def test_rows_do_not_talk():
    assert_rows_do_not_talk(realnvp(blocks=1, batch_norm=True).log_prob, images(6))


def test_temperature_zero_gives_one_image():
    model = realnvp()
    cold = model.sample(3, temperature=0.0)
    assert torch.equal(cold[0], cold[1]) and not torch.equal(*model.sample(2))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_parameter_moves_with_every_option(options):
    torch.manual_seed(0)
    model = RealNVP(SPEC, width=8, l2=5e-5, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, Given(SPEC, images(64).float(), batch_size=16), 3)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    assert torch.isfinite(model.terms["loss"])


@pytest.mark.slow
def test_ring_of_gaussians_is_learnt_to_within_three_tenths_of_its_entropy():
    torch.manual_seed(0)
    data = Toy2D("ring", std=0.2)
    model = RealNVP(data.spec, lr=2e-3)
    fit(model, data, 3000, gradient_clip_val=50)
    assert -model.eval().log_prob(data.examples(split="val")["x"]).mean() < 1.69 + 0.3

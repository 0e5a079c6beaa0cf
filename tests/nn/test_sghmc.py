"""SGHMC samples: its stationary law is the posterior, and without temperature it is momentum."""

import math

import pytest
import torch

from zoo.core.noise import seeded
from zoo.nn.sghmc import SGHMC


def chain(params, eta=1e-3, alpha=0.05, temperature=1.0, seed=0, **options):
    return SGHMC(params, eta, alpha, temperature, lambda step: seeded(seed, step), **options)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_many_chains_on_a_parabola_have_its_normal_distribution(temperature):
    theta, s2, eta = torch.zeros(4000, requires_grad=True), 0.25, 1e-3
    optimiser = chain([theta], eta, temperature=temperature)
    for _ in range(3000):
        theta.grad = theta.detach() / s2  # ∇ θ²/(2 s²)
        optimiser.step()
    wanted = s2 * temperature
    assert theta.mean().abs() < 4 * math.sqrt(wanted / 4000)
    assert theta.var().item() == pytest.approx(wanted, rel=0.1)
    velocity = optimiser.state[theta]["v"]
    assert velocity.var().item() == pytest.approx(eta * temperature, rel=0.1)


def test_without_temperature_all_chains_end_in_the_minimum():
    theta = torch.linspace(-1, 1, 7).requires_grad_()
    optimiser = chain([theta], 1e-2, 0.1, temperature=0.0)
    for _ in range(1000):
        theta.grad = theta.detach() / 0.25
        optimiser.step()
    assert theta.abs().max() < 1e-6


def test_without_temperature_it_is_descent_with_momentum():
    start = torch.randn(5, dtype=torch.float64)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    a, b = chain([ours], 0.02, 0.3, temperature=0.0), torch.optim.SGD([theirs], 0.02, momentum=0.7)
    for _ in range(20):
        for theta, optimiser in ((ours, a), (theirs, b)):
            optimiser.zero_grad()
            (theta**4).sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_injected_noise_has_the_variance_2_alpha_eta_t():
    theta = torch.zeros(200_000, requires_grad=True)
    theta.grad = torch.zeros_like(theta)
    optimiser = chain([theta], 0.02, 0.3, temperature=0.5)
    optimiser.step()
    assert theta.var().item() == pytest.approx(2 * 0.3 * 0.02 * 0.5, rel=0.02)


def test_a_random_linear_term_in_the_mean_loss_is_the_same_step():
    """⟨θ, ξ⟩ with Var ξ = 2 α/(l N), in a loss U/N of rate l = η N and momentum 1 - α."""
    n, eta, alpha = 50, 2e-3, 0.2
    start = torch.randn(6, dtype=torch.float64)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    a = chain([ours], eta, alpha)
    b = torch.optim.SGD([theirs], eta * n, momentum=1 - alpha)
    for step in range(5):
        a.zero_grad()
        b.zero_grad()
        (n * (ours**2).sum()).backward()
        a.step()
        xi = torch.randn(6, generator=seeded(0, step), dtype=torch.float64)
        xi = -xi * math.sqrt(2 * alpha / (eta * n * n))
        ((theirs**2).sum() + (theirs * xi).sum()).backward()
        b.step()
    torch.testing.assert_close(ours, theirs)


def test_each_weight_and_each_step_has_noise_of_its_own():
    two = [torch.zeros(9, requires_grad=True) for _ in range(2)]
    optimiser, seen = chain(two, alpha=1.0), []
    for _ in range(2):
        for p in two:
            p.grad = torch.zeros(9)
        optimiser.step()
        seen += [optimiser.state[p]["v"].clone() for p in two]
    assert len(torch.stack(seen).unique(dim=0)) == 4


def test_first_steps_are_adams_and_leave_no_velocity():
    start = torch.randn(5, dtype=torch.float64)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    a = chain([ours], 0.02, 0.3, temperature=0.0, warm_up=4, lr=0.1, betas=(0.5, 0.9))
    b = torch.optim.Adam([theirs], 0.1, (0.5, 0.9))
    for _ in range(4):
        for theta, optimiser in ((ours, a), (theirs, b)):
            optimiser.zero_grad()
            (theta**4).sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)
    before = ours.detach().clone()
    a.step()
    torch.testing.assert_close(ours, before - 0.02 * ours.grad)
    assert set(a.state[ours]) == {"v"}


@pytest.mark.parametrize("at", [2, 5])
def test_a_saved_chain_goes_on_as_if_it_had_not_stopped(at):
    def run(theta, optimiser, steps):
        for _ in range(steps):
            optimiser.zero_grad()
            theta.square().sum().backward()
            optimiser.step()

    whole, part = (torch.ones(4, requires_grad=True) for _ in range(2))
    run(whole, chain([whole], warm_up=3), 9)
    first = chain([part], warm_up=3)
    run(part, first, at)
    second = chain([part], warm_up=3)
    second.load_state_dict(first.state_dict())
    run(part, second, 9 - at)
    assert torch.equal(whole, part)


def test_eta_is_read_when_it_is_needed_and_weights_without_gradient_rest():
    theta, other = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    eta = [9.0]
    optimiser = chain([theta, other], lambda: eta[0], 0.5, temperature=0.0)
    eta[0] = 0.25
    theta.grad = torch.ones(1)
    optimiser.step()
    assert theta.item() == 0.75 and other.item() == 1

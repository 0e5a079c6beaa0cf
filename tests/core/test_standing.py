"""Standing statistics: of fresh passes, and gone afterwards."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.core.noise import seeded
from zoo.core.standing import standing


def made():
    torch.manual_seed(0)
    net = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4), nn.Dropout(0.5))
    for _ in range(3):
        net(torch.randn(8, 3))  # statistics of the past
    return net


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}, [m.training for m in net.modules()]


def test_inside_the_statistics_are_the_plain_means_of_the_passes():
    net = made()
    inputs = [torch.randn(16, 3, generator=seeded("test", i)) for i in range(5)]
    with standing(net, 5, lambda i: net(inputs[i])):
        with torch.no_grad():
            hidden = [net[0](v) for v in inputs]
        mean = torch.stack([h.mean(0) for h in hidden]).mean(0)
        var = torch.stack([h.var(0) for h in hidden]).mean(0)
        torch.testing.assert_close(net[1].running_mean, mean)
        torch.testing.assert_close(net[1].running_var, var)
        assert not any(m.training for m in net.modules())
        assert torch.equal(net(inputs[0]), net(inputs[0]))


@pytest.mark.parametrize("training", [True, False])
def test_afterwards_everything_is_as_it_was_even_after_an_error(training):
    net = made().train(training)
    before, modes = state(net)
    with standing(net, 4, lambda i: net(torch.randn(8, 3))):
        assert not torch.equal(net[1].running_mean, before["1.running_mean"])
    with pytest.raises(RuntimeError), standing(net, 2, lambda i: net(torch.randn(8, 3))):
        raise RuntimeError
    after, now = state(net)
    assert modes == now and net[1].momentum == 0.1
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_no_passes_and_no_norms_change_nothing():
    net = made().train()
    with standing(net, 0, lambda i: 1 / 0):
        assert net.training
    with standing(nn.Linear(2, 2), 3, lambda i: 1 / 0):
        pass


def test_any_model_with_batch_norm_can_be_sampled_with_them():
    from zoo.core import DataSpec
    from zoo.gan.dcgan import DCGAN

    torch.manual_seed(0)
    model = DCGAN(DataSpec((1, 8, 8), 17), width=4).eval()
    codes = torch.rand(64, 32, generator=seeded("codes")) * 2 - 1
    plain = model.from_codes(codes[:4])
    with standing(model.g, 1, lambda i: model.g(codes)):
        mine = model.g(codes)
    with torch.no_grad():
        model.g.train()
        batch = model.g(codes)
    assert not torch.equal(plain, model.quantised(mine)[:4])
    torch.testing.assert_close(mine, batch, rtol=0, atol=0.02)

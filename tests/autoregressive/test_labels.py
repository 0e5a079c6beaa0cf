"""A model that is told the label hears it in everything: its mass, its cached sampler, its naive
one.
"""

import pytest
import torch

from tests.support import Given, fit
from zoo import registry
from zoo.core import Batch, DataSpec

SPEC = DataSpec((1, 4, 4), 3, num_classes=3)
SMALL = {
    "fvsbn": {},
    "made": {"hidden": 12},
    "pixelcnn": {"n": 1, "h": 4, "head": 6},
    "gated_pixelcnn": {"n": 2, "p": 4, "head": 6, "k": 3},
    "pixelcnn_pp": {"width": 4, "components": 2, "resolutions": 1},
    "pixelrnn": {"n": 1, "h": 4, "head": 6},
}
OPTIMISERS = {
    "made": ("adagrad", torch.optim.Adagrad),
    "nade": ("sgd", torch.optim.SGD),
    "pixelcnn": ("rmsprop", torch.optim.RMSprop),
    "gated_pixelcnn": ("rmsprop", torch.optim.RMSprop),
    "pixelrnn": ("rmsprop", torch.optim.RMSprop),
    "multiscale_pixelrnn": ("rmsprop", torch.optim.RMSprop),
}


def told(name: str):
    torch.manual_seed(0)
    model = registry.create(name, SPEC, conditional=True, **SMALL[name])
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.5)
    return model.double().eval()


def drawn(model, y, cache=True):
    return model.sample(len(y), y=y, generator=torch.Generator().manual_seed(1), cache=cache)


@pytest.mark.parametrize("name", SMALL)
def test_the_cached_sampler_hears_the_label_as_the_naive_one_does(name):
    model, y = told(name), torch.arange(12) % 3
    assert torch.equal(drawn(model, y), drawn(model, y, cache=False))
    for label in (0, 1, 2):  # rows of a label are those that it has in a batch of its own
        rows = y == label
        alone = drawn(model, torch.full_like(y, label))
        assert torch.equal(drawn(model, y)[rows], alone[rows])
        assert not torch.equal(alone, drawn(model, torch.full_like(y, (label + 1) % 3)))


@pytest.mark.parametrize("name", SMALL)
def test_each_label_has_a_mass_of_its_own(name):
    model = told(name)
    x = torch.randint(3, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    each = torch.stack([model.log_prob(x, y=torch.full((5,), label)) for label in range(3)])
    assert (each.diff(dim=0).abs() > 1e-6).all() and ((each[0] - each[2]).abs() > 1e-6).all()
    mixed = model.log_prob(x, y=torch.tensor([0, 1, 2, 1, 0]))
    torch.testing.assert_close(mixed, each[[0, 1, 2, 1, 0], range(5)])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_other_optimiser_is_the_one_that_was_asked_for(name):
    option, kind = OPTIMISERS[name]
    spec = DataSpec((1, 4, 4), 3)
    model = registry.create(name, spec, optimiser=option, lr=0.01)
    assert type(model.configure_optimizers()) is kind
    x = torch.randint(3, (8, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    trainer = fit(model, Given(spec, x, batch_size=8), 1)
    assert type(trainer.optimizers[0]) is kind
    assert any(not torch.equal(p, before[k]) for k, p in model.named_parameters())


def test_a_mixture_over_labels_is_their_mean():
    model = told("gated_pixelcnn")
    x = torch.randint(3, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    each = torch.stack([model.log_prob(x, y=torch.full((5,), label)) for label in range(3)])
    torch.testing.assert_close(model.log_prob(x), each.exp().mean(0).log())
    likeliest = each.argmax(0)
    judged = {"x": x, "y": likeliest}
    assert model.evaluate(Batch(judged))["bayes_accuracy"].tolist() == [1.0] * 5

"""Networks that judge how alike images are, and who is in them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.nn.identity import SCALE, Ident
from zoo.nn.perceptual import VGG, Percep, Vgg16, perceptual_distance


def torchvisions():
    """The first three blocks of torchvision's vgg16, numbered as in its state_dict."""
    layers, wide = [], 3
    for width, n in VGG[:3]:
        for _ in range(n):
            layers += [nn.Conv2d(wide, width, 3, padding=1), nn.ReLU()]
            wide = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def test_a_layer_of_vgg_is_that_of_torchvisions_network():
    torch.manual_seed(0)
    whole = torchvisions()
    net = Vgg16(("relu1_2", "relu2_2", "relu3_1"))
    net.load({f"features.{k}": v for k, v in whole.state_dict().items()})
    x = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    v = (x - mean[:, None, None]) / std[:, None, None]
    wanted = [whole[:n](v) for n in (4, 9, 12)]
    found = net.features(x, ("relu1_2", "relu2_2", "relu3_1"))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_no_more_of_vgg_is_kept_than_is_looked_at():
    assert len(Vgg16(("relu2_2",)).convs) == 4 and len(Vgg16(("relu5_3", "relu1_1")).convs) == 13
    assert sum(p.numel() for p in Vgg16(("relu2_2",)).parameters()) == 260_160


@pytest.mark.parametrize("key", ["features.0.weight", "features.7.bias"])
def test_other_weights_are_refused_by_the_first_that_is_not_its(key):
    state = {f"features.{k}": v for k, v in torchvisions().state_dict().items()}
    del state[key]
    with pytest.raises(ValueError, match=rf"vgg16: {key} is missing"):
        Vgg16(("relu2_2",)).load(state)
    with pytest.raises(ValueError, match=r"features.0.weight has the shape \[3, 3\]"):
        Vgg16(("relu2_2",)).load({**state, "features.0.weight": torch.zeros(3, 3)})


def test_maps_of_percep_have_variance_one_and_its_answers_do_not_know():
    torch.manual_seed(0)
    net, x = Percep(5), torch.rand(8, 3, 16, 16)
    before = net(x)
    net.settle(x)
    mid, high = net.features(x, ("mid", "high"))
    assert mid.shape == (8, 32, 8, 8) and high.shape == (8, 64, 4, 4)
    torch.testing.assert_close(torch.stack([mid.var(), high.var()]), torch.ones(2))
    torch.testing.assert_close(net(x), before)


def test_a_grey_image_is_the_same_in_three_channels():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 12, 20)
    for net in (Percep(3), Ident(4)):
        assert torch.equal(net(x), net(x.expand(-1, 3, -1, -1)))
    look = Vgg16(("relu1_1",))
    assert torch.equal(*(look.features(v, look.names)[0] for v in (x, x.expand(-1, 3, -1, -1))))


def test_a_distance_is_the_sum_over_layers_of_means_of_squares():
    p, q = [torch.ones(2, 3), torch.zeros(4)], [torch.zeros(2, 3), torch.full((4,), 3.0)]
    assert perceptual_distance(p, q).item() == 1 + 9


def test_a_vector_of_a_head_has_length_one_and_its_logits_are_16_cosines():
    torch.manual_seed(0)
    net, x = Ident(7, dim=5), torch.rand(3, 3, 16, 16)
    v = net.embed(x)
    assert v.shape == (3, 5) and torch.allclose(v.norm(dim=1), torch.ones(3))
    cosines = F.cosine_similarity(v[:, None], net.people.weight[None], dim=2)
    torch.testing.assert_close(net(x), SCALE * cosines)

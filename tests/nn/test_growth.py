"""What grows: the schedule by images, the discriminator, and the statistics of its minibatch."""

import pytest
import torch
from torch.nn import functional as F

from zoo.nn.adain import adain
from zoo.nn.blur import blur, doubled, halved
from zoo.nn.growth import GrowingDiscriminator, Growth, levels_of, maps_of
from zoo.nn.minibatch import minibatch_std


def test_the_schedule_is_the_one_worked_out_by_hand():
    growth = Growth(levels=3, fade=40, steady=100)
    table = {0: (0, 1), 99: (0, 1), 100: (1, 0), 130: (1, 0.75), 140: (1, 1), 239: (1, 1)}
    table |= {240: (2, 0), 250: (2, 0.25), 280: (2, 1), 10**9: (2, 1)}
    assert {n: growth.at(n) for n in table} == table


def test_growth_may_begin_later_and_need_not_fade():
    assert Growth(3, 40, 100, first=1).at(0) == (1, 1) and Growth(3, 40, 100, 1).at(110) == (
        2,
        0.25,
    )
    assert Growth(3, 40, 100, first=2).at(0) == (2, 1) == Growth(3, 40, 100, first=2).at(120)
    assert [Growth(2, 0, 100).at(n) for n in (99, 100)] == [(0, 1), (1, 1)]


def test_levels_and_maps_are_the_papers_at_1024():
    assert levels_of(1024, 1024) == 9 and levels_of(28, 28) == 3
    assert maps_of(9, 16, 512) == [512, 512, 512, 512, 256, 128, 64, 32, 16]


def net(**options):
    torch.manual_seed(0)
    return GrowingDiscriminator((1, 16, 16), [6, 5, 4], **options).double()


def images(size, n=4):
    return torch.randn(n, 1, size, size, dtype=torch.float64)


def test_a_level_at_share_zero_is_the_one_before_on_halved_images():
    d = net()
    for size in (8, 16):
        x = images(size)
        torch.testing.assert_close(d(x, 0.0), d(F.avg_pool2d(x, 2), 1.0))
        assert not torch.allclose(d(x, 1.0), d(x, 0.0))


def test_the_mixture_of_maps_is_linear_in_the_share():
    d, x = net(group=1), images(16)
    seen = []
    d.blocks[0][0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for alpha in (0.0, 0.25, 1.0):
        d(x, alpha)
    torch.testing.assert_close(seen[1], 0.75 * seen[0] + 0.25 * seen[2])


def test_at_full_share_the_old_input_layer_has_no_gradient_and_levels_to_come_none():
    d = net()
    d(images(8), 1.0).sum().backward()
    reached = [p.weight.grad is not None for p in d.from_image]
    assert reached == [False, True, False]
    assert all(p.grad is None for p in d.blocks[1].parameters())
    assert all(p.grad is not None for p in d.blocks[0].parameters())
    d(images(8), 0.5).sum().backward()
    assert d.from_image[0].weight.grad.abs().max() > 0


def test_levels_go_by_the_size_of_the_images():
    assert [net().level(images(size)) for size in (4, 8, 16)] == [0, 1, 2]
    wide = GrowingDiscriminator((3, 28, 20), [4, 4, 4])
    assert wide.level(torch.zeros(1, 3, 7, 5)) == 0 and wide(torch.zeros(2, 3, 14, 10)).shape == (
        2,
    )


def test_minibatch_deviation_is_that_of_numpy_in_each_group_alone():
    h = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    out = minibatch_std(h, 4)
    assert torch.equal(out[:, :3], h)
    for rows in (slice(0, 4), slice(4, 8)):
        expected = h[rows].numpy().std(0).mean()
        assert out[rows, 3].unique().numel() == 1
        assert out[rows, 3].mean().item() == pytest.approx(expected, rel=1e-6)
    other = torch.cat([h[:4], torch.randn_like(h[4:])])
    assert torch.equal(minibatch_std(other, 4)[:4], out[:4])


def test_equal_rows_deviate_by_the_root_of_the_smallest_number_and_a_short_group_is_filled():
    same = torch.ones(4, 2, 3, 3)
    torch.testing.assert_close(minibatch_std(same)[:, 2], torch.full((4, 3, 3), 1e-4))
    h = torch.randn(6, 1, 1, 1, dtype=torch.float64)
    out = minibatch_std(h, 4)[:, 1].flatten()
    expected = h.flatten()[[4, 5, 0, 1]].numpy().std()
    assert out[4].item() == out[5].item() == pytest.approx(expected, rel=1e-6)
    assert minibatch_std(h[:3], 4)[0, 1].item() == pytest.approx(h[:3].numpy().std(), rel=1e-6)


def test_the_deviation_is_taken_in_single_precision():
    h = (100 + torch.randn(4, 2, 2, 2)).bfloat16()
    out = minibatch_std(h)
    assert out.dtype == torch.bfloat16
    expected = h.float().numpy().std(0).mean()
    assert out[0, 2, 0, 0].item() == pytest.approx(expected, rel=0.01)
    same = minibatch_std(torch.ones(4, 2, 3, 3).half())[:, 2]  # in half precision 1e-8 is nothing
    torch.testing.assert_close(same.float(), torch.full((4, 3, 3), 1e-4), atol=1e-6, rtol=0)


def test_blur_keeps_the_sum_inside_and_is_its_own_mirror():
    x = torch.zeros(1, 2, 7, 7, dtype=torch.float64)
    x[:, :, 2:5, 2:5] = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(blur(x).sum((2, 3)), x.sum((2, 3)))
    torch.testing.assert_close(blur(x.flip(2)), blur(x).flip(2))
    torch.testing.assert_close(blur(x.mT), blur(x).mT)
    wave = (-1.0) ** torch.arange(8).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert blur(wave)[..., 1:-1, 1:-1].abs().max() < 1e-6  # a checkerboard's frequency is gone


def test_halving_undoes_doubling():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(halved(doubled(x)), x)


def test_adain_sets_the_mean_and_the_deviation_of_each_map():
    x = 3 + 5 * torch.randn(4, 3, 6, 6, dtype=torch.float64)
    scale, shift = torch.randn(2, 4, 3, dtype=torch.float64)
    out = adain(x, scale, shift)
    torch.testing.assert_close(out.mean((2, 3)), shift)
    torch.testing.assert_close(out.std((2, 3), correction=0), scale.abs())

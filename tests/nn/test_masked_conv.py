"""Masked convolutions: the mask of the definition, and a convolution one position at a time that is
the convolution.
"""

import pytest
import torch

from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, by_dimension, group_of, row, share, windows

LAYERS = [
    ("A", 2, 6, 7, 2, 1),
    ("B", 4, 6, 3, 2, 1),
    ("B", 5, 12, (1, 3), 3, 4),
    ("B", 7, 8, 1, 3, 2),
    ("A", 3, 3, (5, 1), 3, 1),
    ("A", 1, 4, 3, 1, 1),
    ("B", 3, 4, 1, 1, 1),
]


@pytest.mark.parametrize(("kind", "parts"), [("A", 1), ("B", 1), ("B", 4)])
def test_mask_is_the_one_of_the_definition(kind, parts):
    inputs, outputs, groups = 6, 12, 3
    conv = MaskedConv2d(kind, inputs, outputs, (3, 5), groups, parts)
    for o in range(outputs):
        share = outputs // parts
        g = (o % share) * groups // share
        for i in range(inputs):
            centre = i * groups // inputs < g or (kind == "B" and i * groups // inputs == g)
            assert conv.mask[o, i].int().tolist() == [[1] * 5, [1, 1, int(centre), 0, 0], [0] * 5]


@pytest.mark.parametrize(("features", "groups"), [(6, 3), (7, 3), (3, 3), (16, 3), (5, 1)])
def test_groups_are_contiguous_and_as_even_as_they_go(features, groups):
    group = group_of(features, groups)
    sizes = [group.count(g) for g in range(groups)]
    assert group == sorted(group) and sum(sizes) == features and max(sizes) - min(sizes) <= 1
    assert group_of(2 * features, groups, parts=2) == group * 2


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_columns_are_those_of_the_convolution(layer):
    torch.manual_seed(0)
    kind, inputs, _, _, groups, _ = layer
    conv, x = MaskedConv2d(*layer).double(), torch.randn(3, inputs, 4, 5, dtype=torch.float64)
    plus = torch.randn(3, conv.out_channels, 1, 1, dtype=torch.float64)
    expected, columns = (conv(x) + plus).detach(), ColumnConv(conv, (4, 5), 3, plus)
    with torch.no_grad():
        for p in range(20):
            for g in range(groups):
                value = x[:, columns.group[g]].flatten(2)[..., p].T
                out = columns.step(p, g, value) if kind == "B" else columns.get(p, g)
                torch.testing.assert_close(
                    out.T, expected.flatten(2)[:, columns.outputs[g], p], rtol=0, atol=1e-12
                )
                columns.put(p, g, value)


def test_windows_list_the_taps_before_the_centre_and_then_the_centre():
    outside = 12
    assert windows((3, 4), (3, 3)).tolist()[0] == [outside] * 4 + [0]
    assert windows((3, 4), (3, 3)).tolist()[5] == [0, 1, 2, 4, 5]
    assert windows((3, 4), (3, 3)).tolist()[11] == [6, 7, outside, 10, 11]
    assert windows((3, 4), (1, 5)).tolist()[6] == [4, 5, 6]


def test_parameters_of_a_dimension_lie_together():
    out = torch.arange(2 * 6 * 2 * 3).view(
        2, 6, 2, 3
    )  # 2 rows, 3 channels of 2 parameters, 2x3 pixels
    flat = by_dimension(out, 3)
    assert flat.shape == (2, 18, 2)
    for c, r, w, k in [(0, 0, 0, 1), (2, 1, 2, 0), (1, 0, 2, 1)]:
        assert torch.equal(flat[:, c * 6 + r * 3 + w, k], out[:, c * 2 + k, r, w])


def test_share_of_a_condition_is_one_for_all_rows_or_one_for_each():
    conv, vector, field = (
        torch.nn.Conv2d(2, 3, 1, bias=False),
        torch.randn(4, 2, 1, 1),
        torch.randn(4, 2, 5, 6),
    )
    assert torch.equal(row(share(conv, vector), 3), conv(vector)[:, :, 0])
    assert torch.equal(row(share(conv, field), 3), conv(field)[:, :, 3])
    assert share(None, field) == share(conv, None) == row(0.0, 2) == 0


@pytest.mark.parametrize(("kind", "kernel"), [("C", 3), ("A", 2), ("B", (1, 4))])
def test_other_masks_and_even_kernels_are_refused(kind, kernel):
    with pytest.raises(ValueError, match="kind A or B and an odd kernel"):
        MaskedConv2d(kind, 2, 2, kernel)

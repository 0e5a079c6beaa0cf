"""Pictures of what a generator does with parts of its code show what their labels say."""

import numpy as np
import torch

from tests.show.support import HALVES, Coder, label_of, readable, shade, texts
from tests.support import Given
from zoo.core import DataSpec
from zoo.core.latent import Codes
from zoo.gan.lapgan import LAPGAN
from zoo.show import styles


class Mixer(Coder):
    """Code 0, the upper half, is the style of layers 0 and 1; code 1 that of the other four."""

    layers = 6
    truncations = (0.0, 1.0)

    def mix(self, a, b, layers):
        z = b.clone()
        for column, own in ((0, {0, 1}), (1, {2, 3, 4, 5})):
            if {*layers} & own:
                z[:, column] = a[:, column]
        return self.decode(z)

    def draw_codes(self, n, source):
        return 2 + source.normal(n, 2)

    def sample(self, n, *, truncation=1.0, generator=None):
        return self.decode(truncation * (1 + 2 * torch.rand(n, 2, generator=generator)))

    def edit(self, x, mask, colour):
        return torch.where(mask, x, colour[:, None, None].expand_as(x))


def data():
    return Given(HALVES, torch.full((8, 1, 4, 4), 2.0), torch.arange(8) % 3)


def test_a_mixture_has_the_columns_style_in_the_named_layers_and_the_rows_elsewhere():
    picture = styles.mixing(Mixer(), data(), n=3)
    assert readable(picture) and any("coarse styles (layers 1 to 2)" in t for t in texts(picture))
    per = 3 + 3 * 4  # cells of a panel: the columns' images, then a row's image and its mixtures
    for panel, column_gives_the_top in ((0, True), (1, False), (2, False)):
        first = panel * per
        for r in range(3):
            own = shade(picture, first + 3 + 4 * r)
            for c in range(3):
                column, mixed = (shade(picture, first + i) for i in (c, 4 + 4 * r + c))
                top, bottom = (column[0], own[1]) if column_gives_the_top else (own[0], column[1])
                assert abs(mixed[0] - top) <= 2 and abs(mixed[1] - bottom) <= 2


class Walker(Mixer):
    """To and fro between a and b for the upper half, while the lower stays as it began."""

    path_space = "s"

    def interpolate(self, a, b, frames=10):
        t = (torch.arange(frames) % 2)[:, None]
        z = a[:, None] + t * (b - a)[:, None] * torch.tensor([1.0, 0.0])
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(a), frames))


def test_a_way_through_the_codes_stands_above_the_one_through_the_other_space():
    picture = styles.spaces(Walker(), data(), n=2, seed=3, frames=5)
    a, b = Codes(Walker()).draw(4, 3).chunk(2)
    assert readable(picture) and len(picture.info["cells"]) == 20
    for i in range(2):
        first, last = (Walker().decode(z[i : i + 1])[0, 0, :, 0] / 4 for z in (a, b))
        for row, end in ((2 * i, last), (2 * i + 1, first)):  # the lower half is b's by codes only
            assert abs(shade(picture, 5 * row)[1] / 255 - first[-1]) < 0.02
            assert abs(shade(picture, 5 * row + 4)[1] / 255 - end[-1]) < 0.02
        there = abs(float(last[0] - first[0])) / 2**0.5  # half of the pixels go all the way
        said = [t for t in texts(picture) if t.startswith(f"{i + 1} by ")]
        around = length(arc(a[i].numpy(), b[i].numpy(), 5))
        assert said == [
            f"{i + 1} by codes, length {around:.2f}",
            f"{i + 1} by s, length {4 * there:.2f}",
        ]


def arc(a, b, frames):
    """Between two points of the plane, by their angle and their length (not by their sum)."""
    t = np.linspace(0, 1, frames)[:, None]
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def length(z):
    """Of a path of images of two halves, (frames, 2), of shades 0 to 4."""
    return float(np.sqrt((np.diff(z.clip(0, 4) / 4, axis=0) ** 2).mean(1)).sum())


def test_a_sweep_has_the_same_draws_in_a_column_and_the_truncation_by_its_row():
    picture = styles.truncations(Mixer(), data(), n=4, seed=1)
    labels = ["truncation 0", "truncation 1"]
    assert readable(picture)
    for i in range(4):
        assert label_of(picture, i, labels) == labels[0] and shade(picture, i) == (0, 0)
        assert label_of(picture, 4 + i, labels) == labels[1] and min(shade(picture, 4 + i)) > 40
    again = styles.truncations(Mixer(), data(), n=4, seed=1)
    assert shade(again, 5) == shade(picture, 5)
    assert shade(styles.truncations(Mixer(), data(), n=4, seed=2), 5) != shade(picture, 5)


def test_a_pyramid_shows_each_level_of_the_same_samples_with_its_size():
    model = LAPGAN(DataSpec((1, 16, 16), 17), width=4).eval()
    picture = styles.pyramid(model, None, n=3)
    assert readable(picture) and {"4x4", "8x8", "16x16"} <= {*texts(picture)}
    assert len(picture.info["cells"]) == 9


def test_a_stroke_stands_between_the_image_and_what_became_of_it():
    picture = styles.strokes(Mixer(), data(), n=2)
    labels = ["original", "dark stroke", "edited (dark)", "bright stroke", "edited (bright)"]
    assert [label_of(picture, 2 * i, labels) for i in range(5)] == labels
    ends = [shade(picture, 2 * i)[0] for i in range(5)]
    assert ends[2] < 20 and ends[4] > 235 and abs(ends[0] - 128) < 20  # all but the mask is painted


def test_only_what_a_model_has_is_drawn():
    walks = [name for name, _ in styles.pictures(Walker(), data(), only="spaces")]
    assert walks == ["spaces"]
    names = {name for name, _ in styles.pictures(Mixer(), data(), n=3)}
    assert names == {"mixing", "truncations", "strokes"}
    assert [name for name, _ in styles.pictures(Mixer(), data(), n=3, only="mix")] == ["mixing"]
    assert not [*styles.pictures(Coder(), data())]

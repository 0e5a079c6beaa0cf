"""A toy of clips: a dot that moves; one adversary sees frames, the other clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Spec, Video
from zoo.core.noise import seeded
from zoo.core.options import Count
from zoo.data.base import Split, ZooDataModule
from zoo.nn.prior import Draw, Source
from zoo.registry import register

NONSATURATING = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


class Clips(ZooDataModule):
    """Four frames 8x8 of a dot that goes one pixel a frame, up, down, left or right, and wraps."""

    def __init__(self, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers, seed)

    @property
    def spec(self) -> Spec:
        return Spec("moving dots", x=Video((4, 1, 8, 8), 17))

    def load(self) -> dict[str, Split]:
        sizes = {"train": 200, "val": 40, "test": 40}
        return {name: {"x": self._drawn(name, n)} for name, n in sizes.items()}

    def _drawn(self, name: str, n: int) -> Tensor:
        g = seeded(self.seed, "clips", name)
        start, way = torch.randint(8, (n, 2), generator=g), torch.randint(4, (n,), generator=g)
        step = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])[way]
        at = (start[:, None] + torch.arange(4)[:, None] * step[:, None]) % 8
        x = torch.zeros(n, 4, 1, 8, 8, dtype=torch.uint8)
        rows, frames = torch.arange(n)[:, None], torch.arange(4)
        x[rows, frames, 0, at[..., 0], at[..., 1]] = 16
        return x


@register(
    "toy_clips",
    family="toys",
    about="a code for the whole clip and one a frame, judged by frame and by clip",
    taxonomy="implicit direct",
    can={"sample"},
    data="toy_clips.Clips",
)
class ClipGAN(AdversarialModule):
    """See the module's docstring."""

    accepts = {"x": Video}

    def __init__(
        self,
        spec: Spec,
        latent: Count = 8,
        k: Count = 1,
        lr: float = 1e-3,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        self.latent, self.k, self.lr = latent, k, lr
        frames, channels, h, w = spec.shape
        pixels = channels * h * w
        self.walk = nn.GRU(latent, latent, batch_first=True)
        hidden = nn.Linear(2 * latent, 32), nn.ReLU()
        shape = (channels, h, w)
        self.g = nn.Sequential(*hidden, nn.Linear(32, pixels), nn.Tanh(), nn.Unflatten(1, shape))
        flat = nn.Flatten(), nn.Linear(pixels, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
        d_frame = nn.Sequential(*flat, nn.Flatten(0))
        along = nn.Conv3d(channels, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten()
        d_clip = nn.Sequential(*along, nn.Linear(8 * frames * h * w, 1), nn.Flatten(0))
        self.d_frame = Adversary(self, d_frame, NONSATURATING, inputs=[shape])
        of_clip = [(channels, frames, h, w)]
        self.d_clip = Adversary(self, d_clip, NONSATURATING, inputs=of_clip)

    def rendered(self, n: int, source: Source) -> Tensor:
        """Clips in [-1, 1], (n, T, C, H, W)."""
        frames = self.spec.shape[0]
        still = source.normal(n, 1, self.latent).expand(-1, frames, -1)
        moving = self.walk(source.normal(n, frames, self.latent))[0]
        both = torch.cat([still, moving], 2)
        return self.g(both.flatten(0, 1)).unflatten(0, (n, frames))

    def one_frame(self, v: Tensor) -> Tensor:
        which = self.noise.integers(len(v), high=self.spec.shape[0])
        return v[torch.arange(len(v), device=v.device), which]

    def frame_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_signed(batch["x"])
        made = self.rendered(batch.n, self.noise)
        return self.d_frame.loss((self.one_frame(v),), (self.one_frame(made),))

    def clip_loss(self, batch: Batch) -> Terms:
        v = self.spec.to_signed(batch["x"])
        made = self.rendered(batch.n, self.noise)
        return self.d_clip.loss((v.transpose(1, 2),), (made.transpose(1, 2),))

    def generator_loss(self, batch: Batch) -> Terms:
        made = self.rendered(batch.n, self.noise)
        of_frame = self.d_frame.fool(self.one_frame(made))
        of_clip = self.d_clip.fool(made.transpose(1, 2))
        return {"loss": of_frame + of_clip, "of_frame": of_frame, "of_clip": of_clip}

    def players(self) -> dict:
        return {"d_frame": self.d_frame, "d_clip": self.d_clip, "g": [self.g, self.walk]}

    def phases(self) -> list[Phase]:
        return [
            Phase("d_frame", self.frame_loss, repeat=self.k, critic=True),
            Phase("d_clip", self.clip_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.spec.from_signed(self.rendered(n, source))

    def optimisers(self) -> dict:
        return {p: torch.optim.Adam(self.parameters_of(p), self.lr) for p in self.players()}

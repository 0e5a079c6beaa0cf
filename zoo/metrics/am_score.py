"""AM score, from any classifier's probabilities of real and generated images.

Zhou et al. Activation Maximization Generative Adversarial Nets. 2018. arXiv:1703.02000.

    AM = KL(p_data(y) ‖ p_G(y)) + E_{x ~ G} H(p(y|x)), nats; p(y): the mean of p(y|x). Lower is
    better, 0 the least.

Unlike the inception score it knows the data's classes: a generator must match their shares, and
each of its images be one of them. It does not see diversity within a class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.metrics.base import KeptRows


def am_score(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms, KL(p_data(y) ‖ p_G(y)) and E H(p(y|x)); the first is infinite where a class of
    the data has no mass in the samples.

    Args:
        real, fake: class probabilities of real and generated images, (n, classes) each.

    >>> real, sure, unsure = torch.full((4, 2), 0.5), torch.eye(2), torch.full((2, 2), 0.5)
    >>> [[round(float(v), 4) for v in am_score(real, fake)] for fake in (sure, unsure)]
    [[0.0, 0.0], [0.0, 0.6931]]
    """
    if not len(real) or not len(fake):
        raise ValueError(
            f"the AM score takes real and generated rows, got {len(real)} and {len(fake)}"
        )
    fake = fake.double()
    data, made = real.double().mean(0), fake.mean(0)
    kl = (torch.xlogy(data, data) - torch.xlogy(data, made)).sum()
    return kl.clamp(min=0), torch.special.entr(fake).sum(1).mean()


class AMScore(KeptRows):
    """The AM score of generated images' class probabilities against those of real ones; ``dim`` is
    the number of classes.
    """

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """The score and its two terms, divergence of the marginals and mean entropy."""
        kl, entropy = am_score(self.kept("real"), self.kept("fake"))
        return kl + entropy, kl, entropy

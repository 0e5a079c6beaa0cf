"""k-means: each example is described by the nearest of K centroids.

Paper      Lloyd. Least Squares Quantization in PCM. IEEE Transactions on Information Theory 28,
           1982 (written in 1957). (Seeding: Arthur and Vassilvitskii. k-means++: The Advantages of
           Careful Seeding. SODA 2007.)
Model      K centroids c_k; an example belongs to its nearest one. Images are scaled to [0, 1].
Objective  J = (1/N) Σ_n min_k |x_n - c_k|², lowered by turns: assign every example, move every
           centroid to the mean of its examples. One training step is one such iteration over all
           the data; J is that of the centroids it ends with.
Sampling   A cluster by its share of the data, then its centroid plus noise of the cluster's own
           variance per dimension.
Notes      The first centroids are the best of ``restarts`` k-means++ seedings (scikit-learn's),
           each followed by five iterations. A centroid left without examples moves to the example
           farthest from its own (``train/reseeds``); only then may J rise. A cluster's labels are
           counted, for ``classify`` and the purity. The soft version is gmm; minibatches are not
           here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import EstimatorModule
from zoo.core import Batch, Label, Spec, threads
from zoo.core.noise import mix
from zoo.core.options import Count
from zoo.registry import Paper, register


def squared_distances(x: Tensor, centroids: Tensor) -> Tensor:
    """|x_n - c_k|², (N, K), in float64: the expanded square loses the small ones otherwise."""
    return torch.cdist(x.double(), centroids.double()).square()


@register(
    "kmeans",
    paper=Paper(
        "Lloyd",
        "Least Squares Quantization in PCM",
        1982,
        "IEEE Transactions on Information Theory 28",
    ),
    about="K centroids by Lloyd's iterations from k-means++ seeds",
    taxonomy="baseline",
    likelihood="none",
    can={"sample", "encode", "reconstruct", "classify"},
    data="digits",
    learns=(("val/inertia_ratio", "<", 0.58), ("val/purity", ">", 0.70)),
)
class KMeans(EstimatorModule):
    """k-means clustering.

    Args:
        clusters: K.
        restarts: seedings of which the best one is kept.
        spread: samples carry their cluster's noise; without it they are bare centroids.
    """

    watches = ("inertia_ratio",)
    counts: Tensor
    variance: Tensor
    label_counts: Tensor
    total: Tensor

    def __init__(
        self, spec: Spec, clusters: Count = 10, restarts: Count = 5, spread: bool = True
    ) -> None:
        super().__init__(spec)
        self.restarts, self.spread = restarts, spread
        self.centroids = nn.Parameter(torch.rand(clusters, spec.dim))
        self.register_buffer("counts", torch.ones(clusters))
        # within each cluster, per dimension
        self.register_buffer("variance", torch.zeros(clusters, spec.dim))
        # how often each label occurs in each cluster
        self.register_buffer("label_counts", torch.zeros(clusters, spec.num_classes))
        # mean squared distance to the mean of all data
        self.register_buffer("total", torch.ones(()))

    # -- estimation -------------------------------------------------------------------------------
    @torch.no_grad()
    def start(self, rows: Tensor, y: Tensor | None = None) -> None:
        if len(rows) < len(self.centroids):
            raise ValueError(
                f"kmeans has {len(self.centroids)} clusters for {len(rows)} examples; lower "
                f"--model.clusters"
            )
        self.total.copy_((rows - rows.mean(0)).square().sum(1).mean())
        best, lowest = self.centroids.detach().clone(), float("inf")
        for restart in range(self.restarts):
            self.centroids.copy_(self.seeds(rows, restart))
            for _ in range(5):
                terms = self.iterate(rows, y)
            if terms["inertia"] < lowest:
                best, lowest = self.centroids.detach().clone(), float(terms["inertia"])
        self.centroids.copy_(best)

    def seeds(self, rows: Tensor, restart: int = 0) -> Tensor:
        """K examples far apart, each drawn with probability proportional to the squared distance
        from those before (k-means++).
        """
        from sklearn.cluster import kmeans_plusplus

        seed = mix(int(self.noise_seed), "seeding", restart) % 2**32
        with threads.as_torch():
            found, _ = kmeans_plusplus(rows.cpu().numpy(), len(self.centroids), random_state=seed)
        return torch.from_numpy(found).to(rows)

    @torch.no_grad()
    def iterate(self, rows: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        k = len(self.centroids)
        distance, nearest = squared_distances(rows, self.centroids).min(1)
        counts = torch.bincount(nearest, minlength=k)
        sums = rows.new_zeros(k, rows.shape[1]).index_add_(0, nearest, rows)
        empty = counts == 0
        means = sums / counts.clamp(min=1)[:, None]
        means[empty] = rows[distance.topk(int(empty.sum())).indices]
        self.centroids.copy_(means)

        distance, nearest = squared_distances(rows, self.centroids).min(1)
        self.counts.copy_(torch.bincount(nearest, minlength=k))
        away = (rows - self.centroids[nearest]).square()
        within = rows.new_zeros(k, rows.shape[1]).index_add_(0, nearest, away)
        self.variance.copy_(within / self.counts.clamp(min=1)[:, None])
        if y is not None:
            one_hot = F.one_hot(y, self.spec.num_classes).double()
            self.label_counts.copy_(F.one_hot(nearest, k).T.double() @ one_hot)
        inertia = distance.mean()
        return {"inertia": inertia, "inertia_ratio": inertia / self.total, "reseeds": empty.sum()}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """J, J over the total variance of the training data, and how often an example has its
        cluster's commonest label.
        """
        distance, nearest = squared_distances(self.prepared(batch["x"]), self.centroids).min(1)
        values = {"inertia": distance, "inertia_ratio": distance / self.total}
        if "y" in batch and self.spec.num_classes:
            values["purity"] = (self.label_counts.argmax(1)[nearest] == batch["y"]).double()
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        k = torch.multinomial(self.counts, n, replacement=True, generator=generator)
        x = self.centroids[k]
        if self.spread:
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + self.variance.sqrt()[k] * noise
        return self._examples(x)

    def encode(self, x: Tensor) -> Tensor:
        """Distances to the centroids, (B, K); the smallest is the cluster's."""
        return squared_distances(self.prepared(x), self.centroids).sqrt()

    def reconstruct(self, x: Tensor) -> Tensor:
        return self._examples(self.centroids[self.encode(x).argmin(1)])

    def classify(self, x: Tensor) -> Tensor:
        """P(y | cluster of x), (B, num_classes), from the labels counted in training plus one of
        each.
        """
        self.spec.require("kmeans.classify", y=Label)
        counted = self.label_counts[self.encode(x).argmin(1)] + 1
        return counted / counted.sum(1, keepdim=True)

    def _examples(self, v: Tensor) -> Tensor:
        return self.spec.from_unit(v).view(len(v), *self.spec.shape)

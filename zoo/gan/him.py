"""Hierarchical implicit model: simulators with a prior over their parameters, inferred by a game.

Paper      Tran, Ranganath, Blei. Hierarchical Implicit Models and Likelihood-Free Variational
           Inference. NIPS 2017; first Deep and Hierarchical Implicit Models. arXiv:1702.08896.
Model      β ~ N(0, I), the same for all rows; x_n = g(ε_n | β, c_n) by a simulator that can be
           drawn from and whose density need not exist, c_n what it is told. q(β) = N(m, diag s²).
Objective  With r(x, β, c) for log p(x | β, c) - log q(x | c), q the data's own distribution:
           r:  E softplus(-r(x̃, β, c)) + E softplus(r(x, β, c)) (ratio_loss="log"), or
               E max(0, 1 - r(x̃, β, c)) + E max(0, 1 + r(x, β, c)) ("hinge"):
               x̃ simulated with β ~ q, x the data, the same β beside both and without gradient.
               For given q the optimum of "log" is that ratio, p labelled 1.
           q:  KL(q(β) ‖ p(β))/N - E_{β ~ q, n} r(x_n, β, c_n): minus the variational bound of
               equation 5 over N, up to the constant Σ log q(x_n | c_n). Its gradient goes through
               β (reparameterised) into q and never into r. ``q="point"``: log p(β) in the KL's
               place and s = 0, the posterior's mode.
Tasks      by the data: ``linear_regression``, x = βᵀc + σ ε, whose posterior is known;
           ``lotka_volterra``, populations over time, log rates normal; images with labels, the
           Bayesian GAN of section 5: a label is drawn by a network of weights β from an image and
           noise.
Sampling   β ~ q, then the simulator: the posterior predictive. ``classify`` averages over β.
Logs       train/kl; train/bound, the bound over N up to that constant. Regression:
           val/posterior_error, the largest error of a mean, val/posterior_spread, the geometric
           mean of ratios of deviations, val/posterior_kl. Series: val/inside_90, the share of
           held-out values within the central 90 % of simulated ones. Labels: val/acc.
Notes      Rows of a minibatch have ``draws`` β each, of their own. r* is the same whatever β it is
           shown, so its own loss has β with ``widen`` times q's deviations: as q narrows, data and
           simulation of q alone no longer say how r depends on β (widen=1 is the paper's; on the
           regression it errs by .08 to .2 where 8 errs by .02). r sees the simulator's noiseless
           response or its mean probabilities beside x and c, and how they agree, or the four
           rates' logarithms and how far the populations grow otherwise than these say: a network's
           weights are too many to be an input. Local variables z_n of the paper's hierarchy are the
           simulators' noise here, which q does not infer. Networks, rates and the prior of the
           rates are ours.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Label, Series, Spec, Vector
from zoo.core.noise import seeded
from zoo.core.options import Count, Decay, Positive
from zoo.nn.coders import mlp
from zoo.nn.gaussian import kl_standard
from zoo.nn.prior import Draw, Source
from zoo.nn.simulators import STEPS, lotka_volterra, unexpected_growth
from zoo.nn.small import logits
from zoo.registry import Paper, register

# What r pays for data and for what was simulated, from its value; simulated rows are labelled 1.
LOSSES = {
    "log": Loss(real=F.softplus, fake=lambda r: F.softplus(-r)),
    "hinge": Loss(real=lambda r: F.relu(1 + r), fake=lambda r: F.relu(1 - r), targets=False),
}
CENTRE, WIDTH = (0.02, 0.4, 0.7, 0.02), 0.7  # of the rates' log-normal prior
START = 0.3  # deviation of m's start: a network of no weights stays one
PREDICTIVE = 64  # draws of β that a prediction is averaged over


class Simulator(Protocol):
    """x given β and what is told, (B, S, ...) for S draws of β a row.

    Attributes:
        dim: of β. seen, hint, matched: values of x, of β's summary and of ``match``, for r.
    """

    dim: int
    seen: int
    hint: int
    matched: int

    def simulate(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        """x as r sees it, (B, S, seen), for β (B, S, dim) and c (B, C)."""

    def summary(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        """(B, S, hint), differentiable in β."""

    def match(self, x: Tensor, hint: Tensor) -> Tensor:
        """How x and the summary agree, (B, S, matched)."""

    def read(self, x: Tensor) -> Tensor:
        """x of the data as r sees it, (B, seen)."""

    def written(self, seen: Tensor) -> Tensor:
        """x in the units of the data, (B, ...), from what r sees."""


class Linear:
    """x = βᵀc + σ ε."""

    def __init__(self, dim: int, sigma: float) -> None:
        self.dim, self.sigma, self.seen, self.hint, self.matched = dim, sigma, 1, 1, 1

    def simulate(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        mean = self.summary(beta, c, source)
        return mean + self.sigma * source.normal(*mean.shape)

    def summary(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        return (beta * c[:, None]).sum(2, keepdim=True)

    def match(self, x: Tensor, hint: Tensor) -> Tensor:
        return x - hint

    def read(self, x: Tensor) -> Tensor:
        return x

    def written(self, seen: Tensor) -> Tensor:
        return seen


class PredatorPrey:
    """Populations whose log rates are log CENTRE + WIDTH β; r sees log(1 + x), β, and how far x
    grows as β says.
    """

    def __init__(self, points: int) -> None:
        self.points, self.dim, self.seen, self.hint, self.matched = points, 4, 2 * points, 4, 8

    def rates(self, beta: Tensor) -> Tensor:
        return (beta.new_tensor(CENTRE).log() + WIDTH * beta).exp()

    def simulate(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        noise = source.normal(*beta.shape[:2], self.points, STEPS, 4)
        return self.read(lotka_volterra(self.rates(beta), noise).flatten(0, 1)).unflatten(
            0, beta.shape[:2]
        )

    def summary(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        return beta

    def match(self, x: Tensor, hint: Tensor) -> Tensor:
        logs = x.unflatten(2, (self.points, 2))
        return unexpected_growth(logs, self.rates(hint)).clamp(-20, 20)

    def read(self, x: Tensor) -> Tensor:
        return x.log1p().flatten(1)

    def written(self, seen: Tensor) -> Tensor:
        return seen.expm1().unflatten(1, (self.points, 2))


class Classifier:
    """A label drawn from softmax(W₂ relu(W₁ (c, ε) + b₁) + b₂), β all four; r sees the label and
    the log of the probabilities' mean over a few ε.
    """

    def __init__(self, inputs: int, classes: int, hidden: int, noise: int) -> None:
        self.shapes = ((hidden, inputs + noise), (hidden,), (classes, hidden), (classes,))
        self.dim = sum(torch.Size(s).numel() for s in self.shapes)
        self.classes, self.noise, self.seen, self.hint = classes, noise, classes, classes
        self.matched = 1

    def scores(self, beta: Tensor, c: Tensor, eps: Tensor) -> Tensor:
        """Log-probabilities, (B, S, K, classes), for K draws ε (B, S, K, noise). Weights are β over
        the root of the units before them.
        """
        sizes = [torch.Size(s).numel() for s in self.shapes]
        w1, b1, w2, b2 = (
            part.unflatten(2, shape)
            for part, shape in zip(beta.split(sizes, 2), self.shapes, strict=True)
        )
        w, v = w1.split([c.shape[1], self.noise], 3)
        h = torch.einsum("bshi,bi->bsh", w, c) + b1
        h = (h[:, :, None] + torch.einsum("bshi,bski->bskh", v, eps)) / w1.shape[3] ** 0.5
        out = torch.einsum("bsch,bskh->bskc", w2, h.relu()) * (2 / w2.shape[3]) ** 0.5
        return (out + b2[:, :, None]).log_softmax(3)

    def simulate(self, beta: Tensor, c: Tensor, source: Source) -> Tensor:
        eps = source.normal(*beta.shape[:2], 1, self.noise)
        u = source.uniform(*beta.shape[:2], self.classes).clamp(1e-7, 1 - 1e-7)
        chosen = (self.scores(beta, c, eps)[:, :, 0] - (-u.log()).log()).argmax(2)
        return F.one_hot(chosen, self.classes).to(beta.dtype)

    def summary(self, beta: Tensor, c: Tensor, source: Source, k: int = 4) -> Tensor:
        eps = source.normal(*beta.shape[:2], k, self.noise)
        return self.scores(beta, c, eps).logsumexp(2) - math.log(k)

    def match(self, x: Tensor, hint: Tensor) -> Tensor:
        return (x * hint).sum(2, keepdim=True)  # the label's own

    def read(self, x: Tensor) -> Tensor:
        return F.one_hot(x, self.classes).to(torch.get_default_dtype())

    def written(self, seen: Tensor) -> Tensor:
        return seen.argmax(1)


class Ratio(nn.Module):
    """r(x, summary of β, c), (B,): x, the summary, how they agree, and what is told."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.net = mlp(inputs, 1, width, 2, "softplus")

    def forward(self, x: Tensor, hint: Tensor, match: Tensor, c: Tensor) -> Tensor:
        return logits(self.net(torch.cat([x, hint, match, c], 1)))


class Posterior(nn.Module):
    """q(β) = N(m, diag s²), or the point m.

    Attributes:
        mean: m, (D,). log_std: log s, (D,).
    """

    def __init__(self, dim: int, point: bool) -> None:
        super().__init__()
        self.point = point
        self.mean = nn.Parameter(START * torch.randn(dim))
        self.log_std = nn.Parameter(torch.full((dim,), -1.0), requires_grad=not point)

    def draw(self, n: int, s: int, source: Source, widen: float = 1.0) -> Tensor:
        """(n, s, D), with ``widen`` times the deviations."""
        eps = source.normal(n, s, len(self.mean))
        return self.mean + (0.0 if self.point else widen * self.log_std.exp()) * eps

    def cost(self) -> Tensor:
        """KL(q ‖ N(0, I)), or -log p(m) up to its constant."""
        if self.point:
            return 0.5 * self.mean.square().sum()
        return kl_standard(self.mean, 2 * self.log_std).sum()


@register(
    "him",
    paper=Paper(
        "Tran, Ranganath, Blei",
        "Hierarchical Implicit Models and Likelihood-Free Variational Inference",
        2017,
        "1702.08896",
    ),
    about="a simulator with a prior over its parameters, whose posterior is inferred by a ratio "
    "that a discriminator learns",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "classify"},
    told=("covariates",),
    data="linear_regression",
    learns=(
        ("val/posterior_error", "<", 0.06),
        ("val/posterior_spread", ">", 0.85),
        ("val/posterior_spread", "<", 1.2),
    ),
)
class HIM(AdversarialModule):
    """See the module's docstring.

    Args:
        spec: ``x`` and ``covariates``, vectors, for regression; a series of two values for
            predators and prey; images and labels for classes.
        q: "gaussian", or "point" for the posterior's mode.
        ratio_loss: "log" or "hinge". draws: of β for each row. widen: factor of q's deviations in
            r's own loss.
        sigma: σ of the regression's noise. hidden: units of the classifier; noise: its ε's
            dimension.
        width: hidden units of r. k: r's steps in a cycle. lr_r, lr_q: learning rates. beta1: Adam's
            first decay.
        loop: options of the adversarial loop.
    """

    watches = ("kl", "bound")
    accepts = {"x": (Vector, Series, Image)}
    size: Tensor
    exact_mean: Tensor
    exact_cov: Tensor

    def __init__(
        self,
        spec: Spec,
        q: Literal["gaussian", "point"] = "gaussian",
        ratio_loss: Literal["log", "hinge"] = "log",
        draws: Count = 4,
        widen: Positive = 8.0,
        sigma: Positive = 1.0,
        hidden: Count = 16,
        noise: Count = 4,
        width: Count = 32,
        k: Count = 2,
        lr_r: Positive = 1e-3,
        lr_q: Positive = 1e-2,
        beta1: Decay = 0.9,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        self.draws, self.widen, self.k = draws, widen, k
        self.lr_r, self.lr_q, self.betas = lr_r, lr_q, (beta1, 0.999)
        simulator: Simulator
        told = exact = 0  # values of what is told, and of β where its posterior is known
        if spec.has(covariates=Vector):
            told = exact = spec["covariates"].shape[0]
            self.task, simulator = "regression", Linear(told, sigma)
        elif spec.has(x=Series) and spec["x"].shape[1] == 2:
            self.task, simulator = "series", PredatorPrey(spec["x"].shape[0])
        elif spec.has(x=Image, y=Label):
            told, classes = spec.dim, spec.num_classes
            self.task, simulator = "labels", Classifier(told, classes, hidden, noise)
        else:
            raise ValueError(
                f"him has simulators of responses to covariates, of predators and prey, and of the "
                f"labels of images, got {spec}; choose --data linear_regression, lotka_volterra or "
                "digits"
            )
        self.simulator = simulator
        shapes = [(simulator.seen,), (simulator.hint,), (simulator.matched,), (told,)]
        net = Ratio(sum(s[0] for s in shapes), width)
        self.r = Adversary(self, net, LOSSES[ratio_loss], inputs=shapes, realness=torch.neg)
        self.q = Posterior(simulator.dim, q == "point")
        self.register_buffer("size", torch.ones((), dtype=torch.long))  # N
        self.register_buffer("exact_mean", torch.zeros(exact))
        self.register_buffer("exact_cov", torch.eye(exact))

    @property
    def told(self) -> tuple[str, ...]:
        return {"regression": ("covariates",), "series": (), "labels": ("x",)}[self.task]

    @property
    def makes(self) -> tuple[str, ...]:
        return ("y",) if self.task == "labels" else ("x",)

    def initialise_from(self, batch: Batch) -> None:
        """N, and the exact posterior of the regression."""
        self.size.fill_(batch.n)
        if isinstance(self.simulator, Linear):
            c, x = batch["covariates"].double(), batch["x"].double()
            variance = self.simulator.sigma**2
            cov = (torch.eye(c.shape[1]).to(c) + c.T @ c / variance).inverse()
            self.exact_cov.copy_(cov)
            self.exact_mean.copy_((cov @ c.T @ x)[:, 0] / variance)

    # -- losses -----------------------------------------------------------------------------------
    def given(self, batch: Batch) -> Tensor:
        """What the simulator is told, (B, C)."""
        if self.task == "series":
            return self.q.mean.new_zeros(batch.n, 0)
        name = self.told[0]
        value = batch[name]
        return (self.spec.to_signed(value) if self.task == "labels" else value).flatten(1)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The data as r sees them, (B, seen), and what the simulator is told."""
        return self.simulator.read(batch[self.makes[0]]).to(self.float_dtype), self.given(batch)

    def beside(self, x: Tensor, hint: Tensor, c: Tensor) -> list[Tensor]:
        """The inputs of r, (B·S, ...): x with S values a row, or one for all of them."""
        s = hint.shape[1]
        x = x if x.ndim == 3 else x[:, None].expand(-1, s, -1)
        match = self.simulator.match(x, hint)
        return [v.flatten(0, 1) for v in (x, hint, match, c[:, None].expand(-1, s, -1))]

    def ratio_loss(self, batch: Batch) -> Terms:
        x, c = self.rows(batch)
        with torch.no_grad():
            beta = self.q.draw(batch.n, self.draws, self.noise, self.widen)
            made = self.simulator.simulate(beta, c, self.noise)
            hint = self.simulator.summary(beta, c, self.noise)
        return self.r.loss(self.beside(x, hint, c), self.beside(made, hint, c))

    def posterior_loss(self, batch: Batch) -> Terms:
        x, c = self.rows(batch)
        beta = self.q.draw(batch.n, self.draws, self.noise)
        hint = self.simulator.summary(beta, c, self.noise)
        ratio = self.r(*self.beside(x, hint, c)).mean()
        cost = self.q.cost()
        loss = cost / self.size - ratio
        return {"loss": loss, "kl": cost, "bound": -loss}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"r": self.r, "q": self.q}

    def phases(self) -> list[Phase]:
        reads = (*self.makes, *self.told)
        return [
            Phase("r", self.ratio_loss, reads, repeat=self.k, critic=True),
            Phase("q", self.posterior_loss, reads),
        ]

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator | None = None, **told: Tensor
    ) -> Tensor | Batch:
        source = Draw(generator, self.device, self.float_dtype)
        c = self.given(Batch(told, n))
        seen = self.simulator.simulate(self.q.draw(n, 1, source), c, source)
        made = self.simulator.written(seen[:, 0])
        return made if self.makes == ("x",) else Batch({"y": made}, n)

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of the classes, (B, K), averaged over draws of β and ε, which are the same
        for every row.

        Raises:
            ValueError: the task is not one of labels.
        """
        if not isinstance(self.simulator, Classifier):
            raise ValueError(f"him classifies images with labels, this one knows {self.spec}")
        source = Draw(seeded(0, "classify", device=self.device), self.device, self.float_dtype)
        c = self.given(Batch({"x": x}))
        beta = self.q.draw(1, PREDICTIVE, source).expand(len(x), -1, -1)
        eps = source.normal(1, PREDICTIVE, 4, self.simulator.noise).expand(len(x), -1, -1, -1)
        return self.simulator.scores(beta, c, eps).exp().mean((1, 2))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        if self.task == "labels":
            right = self.classify(batch["x"]).argmax(1) == batch["y"]
            return {"acc": right.to(self.float_dtype)}
        if self.task == "regression":
            values = posterior_gap(self.q.mean, self.q.log_std, self.exact_mean, self.exact_cov)
            return {name: v.expand(batch.n) for name, v in values.items()}
        source = Draw(seeded(0, "predict", device=self.device), self.device, self.float_dtype)
        beta = self.q.draw(1, 4 * PREDICTIVE, source)
        made = self.simulator.simulate(beta, self.given(Batch({}, 1)), source)[0]
        low, high = made.quantile(made.new_tensor([0.05, 0.95]), dim=0)
        x = self.simulator.read(batch["x"])
        return {"inside_90": ((x >= low) & (x <= high)).to(x.dtype).mean(1)}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas)


def posterior_gap(mean: Tensor, log_std: Tensor, exact: Tensor, cov: Tensor) -> Terms:
    """How far N(mean, diag s²) is from the exact N(exact, cov): the largest error of a mean, the
    geometric mean of the ratios of deviations, and KL(q ‖ exact) in nats.
    """
    mean, log_std, exact, cov = (v.detach().double() for v in (mean, log_std, exact, cov))
    q = torch.distributions.MultivariateNormal(mean, (2 * log_std).exp().diag())
    p = torch.distributions.MultivariateNormal(exact, cov)
    return {
        "posterior_error": (mean - exact).abs().max(),
        "posterior_spread": (log_std - cov.diag().log() / 2).mean().exp(),
        "posterior_kl": torch.distributions.kl_divergence(q, p),
    }

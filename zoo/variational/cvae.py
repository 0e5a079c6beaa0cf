"""CVAE: a VAE of an image given its label, or of a part of it given the rest, with a learned
conditional prior.

Paper      Sohn, Lee, Yan. Learning Structured Output Representation using Deep Conditional
           Generative Models. NIPS 2015.
Model      c is the condition, r what is modelled: "label": c the one-hot label, r the whole image;
           "quadrant" (the paper's): c one, two or three quadrants of the image, r the others. A
           baseline network r̂ = f(c) makes a first guess, which all others read beside c: prior
           network p(z | c) = N(μ_p(c), σ_p²(c)), generation network p(r | c, z), recognition
           network q(z | c, r) = N(μ_q, σ_q²).
Objective  -α L - (1 - α) L_G - log f(r | c), with
           L    = E_q log p(r | c, z) - KL(q(z | c, r) ‖ p(z | c)), a bound of log p(r | c); the KL
                moves both networks;
           L_G  = E_{z ~ p(z | c)} log p(r | c, z), the Gaussian stochastic network's (GSNN); α < 1
                is the hybrid of section 4.2.
           The guess is detached where others read it: the last term alone trains f, for
           ``baseline_steps`` steps.
Bounds     ``elbo`` is L; val/iw_nll is from importance weights, val/mc_nll from draws of the prior,
           val/baseline_nll is -log f(r | c).
Sampling   z ~ p(z | c), r ~ p(r | c, z): ``sample`` given labels, or images of which it reads the
           observed quadrants; ``inpaint`` of those.
           ``predict`` takes both means. Codes are in units of the prior, (z - μ_p) / σ_p.
           Further known pixels choose among ``draws`` draws of z by their likelihood, which is
           exact for infinitely many.
Labels     ``classify`` is Bayes' rule with a uniform prior and the importance-weighted bounds;
           ``encode`` and ``reconstruct`` without labels take the likeliest.
Notes      f and the rest are trained together, in the paper f first. val/bits_per_dim divides by
           all pixels, observed ones included. "standard" is p(z) = N(0, I) for labels, a common
           variant which is not the paper's model.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import VariationalModule
from zoo.core import Batch, Image, Label, Spec
from zoo.core.likelihood import RowNoise
from zoo.core.options import Count, Positive, Share
from zoo.nn.coders import Activation, mlp
from zoo.nn.gaussian import kl_normal, log_normal, reparameterise, soft_clamp
from zoo.nn.likelihood_heads import Likelihood, make_head
from zoo.nn.prior import Draw, Source, path
from zoo.registry import Paper, register


def quadrants(shape: tuple[int, ...], number: int) -> Tensor:
    """The observed part of an image, booleans of its shape: 1 the lower left quadrant, 2 the left
    half, 3 all but the upper right.
    """
    _, height, width = shape
    mask = torch.zeros(shape, dtype=torch.bool, device="cpu")
    mask[:, height // 2 :, : width // 2] = True
    if number > 1:
        mask[:, :, : width // 2] = True
    if number > 2:
        mask[:, height // 2 :] = True
    return mask


@register(
    "cvae",
    paper=Paper(
        "Sohn, Lee, Yan",
        "Learning Structured Output Representation using Deep Conditional Generative Models",
        2015,
        "NIPS 2015",
    ),
    about="a VAE given the label, or given a part of the image, with a learned conditional prior",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate", "inpaint", "classify"},
    told=("y",),
    data="digits",
    learns=(("val/elbo", ">", -16.5), ("val/bayes_accuracy", ">", 0.9)),
)
class CVAE(VariationalModule):
    """Conditional VAE.

    Args:
        task: "label" or "quadrant". observed: quadrants in the condition, 1, 2 or 3 ("quadrant").
        prior: "learned", or "standard" for N(0, I) ("label").
        latent: dimensions of z. width: hidden units of a layer, in every network. layers: hidden
            layers. activation: theirs.
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by
            the data.
        alpha: weight of L against the stochastic network's L_G.
        baseline_steps: steps after which the baseline network is held.
        draws: draws of z of the evaluated bounds, of ``classify``, and in ``inpaint``.
        lr: learning rate.
    """

    watches = ("nelbo", "kl")

    def __init__(
        self,
        spec: Spec,
        task: Literal["label", "quadrant"] = "label",
        observed: Literal[1, 2, 3] = 1,
        prior: Literal["learned", "standard"] = "learned",
        latent: Count = 8,
        width: Count = 200,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        alpha: Share = 1.0,
        baseline_steps: Count = 450,
        draws: Count = 50,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        if task == "label":
            spec.require("cvae with task=label", y=Label)
        else:
            spec.require("cvae with task=quadrant", x=Image)
            if prior == "standard":
                raise ValueError(
                    "cvae with task=quadrant: prior is learned, got standard, which is for labels; "
                    "leave it out"
                )
            if min(spec.shape[1:]) < 2:
                raise ValueError(
                    f"cvae with task=quadrant models images of at least 2x2, got {spec}; choose "
                    f"larger ones"
                )
        self.task, self.latent, self.draws = task, latent, draws
        self.alpha, self.baseline_steps, self.lr = alpha, baseline_steps, lr
        self.head = make_head(likelihood, spec.levels)
        mask = torch.zeros(spec.dim, dtype=torch.bool, device="cpu")
        if task == "quadrant":
            mask = quadrants(spec.shape, observed).flatten()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)  # which dimensions c holds
        seen = sum(mask.tolist())
        c, r = spec.num_classes if task == "label" else seen, spec.dim - seen
        net = (width, layers, activation)
        self.baseline = mlp(c, self.head.params * r, *net)
        self.prior_net = mlp(c + r, 2 * latent, *net) if prior == "learned" else None
        self.recognition = mlp(c + 2 * r, 2 * latent, *net)
        self.generation = mlp(c + r + latent, self.head.params * r, *net)

    # -- the parts of an image --------------------------------------------------------------------
    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.task == "label" else ("x",)

    def told_in(self, batch: Batch) -> dict[str, Tensor]:
        """The labels; quadrants are in the x that every method but ``sample`` is given anyway."""
        return super().told_in(batch) if self.task == "label" else {}

    def condition(self, x: Tensor | None, y: Tensor | None) -> Tensor:
        """c, (B, ·): one-hot labels, or observed pixels in [-1, 1]."""
        if self.task == "quadrant":
            if x is None:
                raise ValueError(
                    "cvae with task=quadrant models an image given a part of it: pass images, "
                    "x=(B, *shape)"
                )
            return self.spec.to_signed(x.flatten(1)[:, self.mask])
        return F.one_hot(self.need_labels(y), self.spec.num_classes).to(self.float_dtype)

    def rest(self, x: Tensor) -> Tensor:
        """r, the dimensions that are modelled, (..., R) of (..., *shape)."""
        return x.flatten(-len(self.spec.shape))[..., ~self.mask]

    def assemble(self, c: Tensor, r: Tensor) -> Tensor:
        """The image of both parts, (B, *shape) in the units of ``spec``."""
        x = r.new_zeros(len(r), self.spec.dim)
        x[:, ~self.mask] = r
        if self.task == "quadrant":
            x[:, self.mask] = self.spec.from_signed(c)
        return x.view(-1, *self.spec.shape)

    # -- networks ---------------------------------------------------------------------------------
    def guess(self, c: Tensor) -> Tensor:
        """The baseline network's parameters of f(r | c), (B, params, R)."""
        return self.baseline(c).unflatten(-1, (self.head.params, -1))

    def context(self, c: Tensor) -> Tensor:
        """c with the guess r̂ in (-1, 1), which is not differentiated."""
        return torch.cat([c, torch.tanh(self.guess(c)[:, 0] / 2).detach()], 1)

    def code_prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of p(z | c), from the context."""
        if self.prior_net is None:
            return h.new_zeros(len(h), self.latent), h.new_zeros(len(h), self.latent)
        mu, log_var = self.prior_net(h).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def recognise(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z | c, r)."""
        read = torch.cat([h, self.rest(self.spec.to_signed(x))], 1)
        mu, log_var = self.recognition(read).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def generate(self, h: Tensor, z: Tensor) -> Tensor:
        """Parameters of p(r | c, z), (..., params, R)."""
        out = self.generation(torch.cat([h.expand(*z.shape[:-1], -1), z], -1))
        return out.unflatten(-1, (self.head.params, -1))

    # -- likelihood -------------------------------------------------------------------------------
    def posterior(self, x: Tensor, *, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.recognise(x, self.context(self.condition(x, y)))

    def log_rest(self, x: Tensor, h: Tensor, z: Tensor, u: Tensor | None = None) -> Tensor:
        """log p(r | c, z), (K, B), of z (K, B, latent)."""
        r = self.rest(x).expand(*z.shape[:2], -1).flatten(0, 1)
        noise = None if u is None else self.rest(u).flatten(0, 1)
        return self.head.log_prob(self.generate(h, z).flatten(0, 1), r, noise).view(z.shape[:2])

    def weigh_at(
        self,
        x: Tensor,
        q: tuple[Tensor, Tensor],
        eps: Tensor,
        u: Tensor | None = None,
        *,
        y: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        h, z = self.context(self.condition(x, y)), reparameterise(*q, eps)
        return self.log_rest(x, h, z, u), log_normal(z, *q) - log_normal(z, *self.code_prior(h))

    def bound_terms(
        self, x: Tensor, source: Source, *, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h = self.context(self.condition(x, y))
        q, (eps, u) = self.recognise(x, h), self.evaluation_noise(x, 1, source)
        kl = kl_normal(*q, *self.code_prior(h)).sum(1)
        return self.log_rest(x, h, reparameterise(*q, eps), u)[0], kl

    def from_prior(self, x: Tensor, k: int, source: Source, *, y: Tensor | None = None) -> Tensor:
        """log p(r | c, z) at k draws of z ~ p(z | c), (k, B): their mean estimates L_G, their
        logmeanexp log p(r | c).
        """
        h, (eps, u) = self.context(self.condition(x, y)), self.evaluation_noise(x, k, source)
        return self.log_rest(x, h, reparameterise(*self.code_prior(h), eps), u)

    def log_baseline(self, x: Tensor, source: Source, *, y: Tensor | None = None) -> Tensor:
        """log f(r | c), (B,)."""
        u = self.rest(source.uniform(len(x), *self.spec.shape)) if self.head.dequantises else None
        return self.head.log_prob(self.guess(self.condition(x, y)), self.rest(x), u)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, told = batch["x"], self.told_in(batch)
        recon, kl = (t.mean() for t in self.bound_terms(x, self.noise, **told))
        baseline, nelbo = -self.log_baseline(x, self.noise, **told).mean(), kl - recon
        terms = {"nelbo": nelbo, "recon": recon, "kl": kl, "baseline_nll": baseline}
        if self.alpha == 1:
            return {"loss": nelbo + baseline, **terms}
        gsnn = -self.from_prior(x, 1, self.noise, **told).mean()
        loss = self.alpha * nelbo + (1 - self.alpha) * gsnn + baseline
        return {"loss": loss, **terms, "gsnn": gsnn}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The VAE's terms, -log f, the prior's estimate of -log p(r | c) and, given labels, whether
        ``classify`` finds them.
        """
        x, told = batch["x"], self.told_in(batch)
        values = super().evaluate(batch, generator)
        values["baseline_nll"] = -self.log_baseline(x, RowNoise(x, generator), **told)
        each = self.from_prior(x, self.draws, RowNoise(x, generator), **told)
        values["mc_nll"] = math.log(self.draws) - each.logsumexp(0)
        if self.task == "label":
            values["bayes_accuracy"] = (self.classify(x).argmax(1) == batch["y"]).float()
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        x: Tensor | None = None,
        generator: torch.Generator | None = None,
        mean_only: bool = False,
    ) -> Tensor:
        """z ~ p(z | c), r ~ p(r | c, z), beside c, (n, *shape), of labels y or the observed part of
        images x; with ``mean_only`` the mean of the second.
        """
        c = self.condition(x, y)
        out = self.outputs(c, self.draw_codes(n, Draw(generator, self.device, self.float_dtype)))
        r = self.head.mean(out) if mean_only else self.head.sample(out, generator)
        return self.assemble(c, r)

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        known = known.expand_as(x)
        if not known.flatten(1)[:, self.mask].all():
            raise ValueError(
                "cvae completes images whose observed quadrants are known, those it was trained "
                "with; see its option observed"
            )
        source, c = Draw(generator, x.device, self.float_dtype), self.condition(x, y)
        seen = self.rest(known)
        k = self.draws if seen.any() else 1
        out = self.outputs(c, source.normal(k, len(x), self.latent))
        r = self.rest(x).expand(k, -1, -1).reshape(-1, 1)
        u = source.uniform(len(r), 1) if self.head.dequantises else None
        each = self.head.log_prob(out.transpose(-1, -2).reshape(len(r), -1, 1), r, u)
        gumbel = -(-source.uniform(k, len(x), low=1e-12).log()).log()
        # z with a probability proportional to what it gives the known pixels
        chosen = ((each.view(k, *seen.shape) * seen).sum(-1) + gumbel).argmax(0)
        drawn = self.head.sample(out[chosen, torch.arange(len(x), device=x.device)], generator)
        return torch.where(known, x, self.assemble(c, drawn))

    def predict(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """The mean of p(r | c, μ_p(c)) beside c, (B, *shape), of labels y or the observed part of
        x: the deterministic inference.
        """
        c = self.condition(x, y)
        return self.assemble(c, self.head.mean(self.outputs(c, c.new_zeros(len(c), self.latent))))

    def classify(self, x: Tensor) -> Tensor:
        """log P(label | x) of every label under a uniform prior, (B, classes), from
        importance-weighted bounds.
        """
        if self.task == "quadrant":
            raise ValueError(
                "cvae classifies by p(x | label), which it does not model with task=quadrant; "
                "build it with task=label"
            )
        y = torch.arange(self.spec.num_classes, device=x.device)
        each = [self.importance_bound(x, self.draws, y=label.expand(len(x))) for label in y]
        return torch.stack(each, 1).log_softmax(1)

    def or_likeliest(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """The labels, or the likeliest ones where there are none."""
        return self.classify(x).argmax(1) if self.task == "label" and y is None else y

    def encode(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        """(μ_q - μ_p) / σ_p, (B, latent): the code in units of the prior, whose draws are so N(0,
        I) for every c.
        """
        h = self.context(self.condition(x, self.or_likeliest(x, y)))
        mu, log_var = self.code_prior(h)
        return (self.recognise(x, h)[0] - mu) * (-0.5 * log_var).exp()

    def outputs(self, c: Tensor, codes: Tensor) -> Tensor:
        """Parameters of p(r | c, z), (..., B, params, R), at z = μ_p + σ_p · code."""
        h = self.context(c)
        return self.generate(h, reparameterise(*self.code_prior(h), codes))

    def decode(self, z: Tensor, *, y: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """The mean of p(r | c, z) beside c, from codes and labels y or the observed part of images
        x.
        """
        c = self.condition(x, y)
        return self.assemble(c, self.head.mean(self.outputs(c, z)))

    def from_codes(self, z: Tensor, *, y: Tensor | None = None) -> Tensor:
        return self.decode(z, y=y)

    def reconstruct(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        y = self.or_likeliest(x, y)
        return self.decode(self.encode(x, y=y), y=y, x=x)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), along the line from the code and the condition of a to those of
        b.
        """
        ya, yb = self.or_likeliest(a), self.or_likeliest(b)
        z = path("uniform", self.encode(a, y=ya), self.encode(b, y=yb), frames).flatten(0, 1)
        c = path("uniform", self.condition(a, ya), self.condition(b, yb), frames).flatten(0, 1)
        x = self.assemble(c, self.head.mean(self.outputs(c, z)))
        return x.view(len(a), frames, *self.spec.shape)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        baseline = [*self.baseline.parameters()]
        mine = {id(p) for p in baseline}
        others = [p for p in self.parameters() if id(p) not in mine]
        optimiser = torch.optim.Adam([{"params": others}, {"params": baseline}], self.lr)
        rates = [lambda step: 1.0, lambda step: float(step < self.baseline_steps)]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, rates)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

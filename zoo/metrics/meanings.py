"""What a logged value means, in words, and what is better: for the farewell and the page of a run.

A key is ``PART/NAME``, PART one of train, val, test; scores of samples end in the extractor's name
(``val/fid_digitsnet``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HIGHER, LOWER = "higher", "lower"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Meaning:
    """What a value is.

    Args:
        title: in a few words. sentence: in one sentence, with its unit and range; "" of a value
            that nobody has explained.
        better: "higher", "lower", the number that is best, or None where neither is better.
        group: what it is about: likelihood, fidelity, diversity, novelty, reconstruction, classes,
            game, estimate, training.
    """

    title: str
    sentence: str = ""
    better: str | float | None = None
    group: str = "training"

    @property
    def aim(self) -> str:
        """What is better, in a word."""
        if isinstance(self.better, str):
            return f"{self.better} is better"
        return "" if self.better is None else f"{self.better:g} is best"

    def cost(self, value: float) -> float:
        """A number that is less for a better value; 0 where neither is better."""
        if self.better is None:
            return 0.0
        if isinstance(self.better, str):
            return -value if self.better == HIGHER else value
        return abs(value - self.better)


def _all(group: str, **said: tuple[str, str, str | float | None]) -> dict[str, Meaning]:
    return {key: Meaning(*what, group) for key, what in said.items()}


def _of_domains(
    name: str, title: str, sentence: str, better: str | None
) -> dict[str, tuple[str, str, str | float | None]]:
    """The same of both domains, by NAME_a and NAME_b; the title has a place for it."""
    return {f"{name}_{k}": (title.format(k), sentence, better) for k in "ab"}


# Scores of samples under an extractor, whose name follows.
OF_SAMPLES = {
    **_all(
        "fidelity",
        fid=(
            "Fréchet distance",
            "how far the features of samples are from those of the data, both taken as normal "
            "distributions; 0 is equal, and values of different extractors do not compare",
            LOWER,
        ),
        kid=(
            "kernel distance",
            "squared maximum mean discrepancy between features of samples and data, unbiased: "
            "around 0, and now and then below it, if they are alike",
            LOWER,
        ),
        precision=("precision", "share of samples that lie where data lie, 0 to 1", HIGHER),
        density=(
            "density",
            "how many neighbourhoods of data a sample lies in, about 1 for samples like the data; "
            "more where samples crowd the middle",
            1.0,
        ),
    ),
    **_all(
        "diversity",
        recall=("recall", "share of the data that lie where samples lie, 0 to 1", HIGHER),
        coverage=("coverage", "share of the data with a sample in their neighbourhood", HIGHER),
    ),
    **_all(
        "classes",
        **{
            "is": (
                "inception score",
                "how sure a classifier is of each sample and how many classes it meets over all, "
                "from 1 to the number of classes",
                HIGHER,
            )
        },
        classes=(
            "classes reached",
            "classes that a classifier sees in at least 2 % of the samples",
            HIGHER,
        ),
        am=(
            "AM score",
            "how far the classes of samples are from those of the data, and how unsure the "
            "classifier is, nats; 0 is best",
            LOWER,
        ),
        cond_acc=(
            "asked-for class",
            "share of samples that a classifier takes for the class that was asked for",
            HIGHER,
        ),
    ),
    **_all(
        "novelty",
        nn_ratio=(
            "distance to the training set",
            "median distance of a sample to its nearest training image, over that of held-out "
            "images: 1 for fresh data, 0 for copies",
            1.0,
        ),
        nn_rate=(
            "near-copies",
            "share of samples as near to the training set as the nearest hundredth of held-out "
            "images: .01 for fresh data, 1 for copies",
            LOWER,
        ),
        nn_auc=(
            "nearer to training than to held-out images",
            "how often a sample is nearer to the training images than to the validation images: .5 "
            "without memory, 1 for copies",
            0.5,
        ),
    ),
}

OTHERS = {
    **_all(
        "likelihood",
        bits_per_dim=(
            "bits per dimension",
            "what it costs to store one channel of one pixel with this model; protocol.json says "
            "whether it is exact, a bound or an estimate",
            LOWER,
        ),
        nll_nats=("negative log-likelihood", "-log p of an example, nats", LOWER),
        elbo=("evidence lower bound", "a lower bound of log p of an example, nats", HIGHER),
        nelbo=("negative evidence bound", "an upper bound of -log p, nats", LOWER),
        iw_nll=(
            "importance-weighted bound",
            "a tighter upper bound of -log p, from several codes an example, nats",
            LOWER,
        ),
        mc_nll=("-log p by sampling", "estimated from codes of the prior, nats", LOWER),
        baseline_nll=("-log p of the baseline", "of the net without codes, nats", LOWER),
        no_z_nll=("-log p without the code", "with a code that says nothing, nats", None),
        relaxed_nelbo=("relaxed bound", "with relaxed samples, nats; no bound itself", LOWER),
        nll_single_mask=("-log p of one mask", "the mean over masks, each alone, nats", LOWER),
        nll_mean_order=("-log p of one order", "the mean over orders, each alone, nats", LOWER),
        gsnn=("loss with codes of the prior", "nats, as in sampling", LOWER),
        nll_upper_nats=("-log p, pessimistic", "with the log Z that errs upwards, nats", LOWER),
        nll_density=("-log density", "of the dequantised image, nats", LOWER),
        loo_nll_nats=("leave-one-out -log p", "of training examples, nats", LOWER),
        csl_nats=(
            "conservative likelihood",
            "-log p of held-out data under the chain's "
            "conditionals, an upper bound on average, nats",
            LOWER,
        ),
        pseudo_nll=("pseudo-likelihood", "-Σ log P(unit | the others), nats", LOWER),
        parzen_nats=(
            "Parzen window",
            "log density of held-out images under a gaussian window on samples, nats; a rough "
            "score of early papers",
            HIGHER,
        ),
        parzen_sigma=("Parzen width", "of the window, chosen on the data", None),
        recon=("reconstruction term", "E log p(x | z), nats: one part of the bound", HIGHER),
        kl=("KL term", "what the codes carry, nats: the other part of the bound", None),
        kl_within=("KL within clusters", "nats that the codes carry within their cluster", None),
        kl_clusters=("KL between clusters", "nats that the choice of the cluster carries", None),
        kl_fraction=("the code's share", "KL over the bound: 0 is a code that is not used", None),
        mi=("mutual information", "between examples and codes, nats", None),
        tc=(
            "total correlation",
            "how much the code's dimensions depend on one another, nats",
            LOWER,
        ),
        dwkl=("dimension-wise KL", "of each dimension's marginal from the prior, nats", None),
        mix_entropy=("use of the components", "entropy of how often each is used, nats", None),
        free_groups=("free groups", "groups of dimensions below their free nats", None),
        gain_over_independent=(
            "gain over independent pixels",
            "nats an example by which it beats pixels that know nothing of each other",
            HIGHER,
        ),
        prior_bpd=("bits of the prior", "of the code, per dimension", None),
        logdet_per_dim=(
            "bits of the flow",
            "of log-determinants and dequantisation, the other part of the bits per dimension",
            None,
        ),
        bits_small=("bits of the small image", "per dimension of it", LOWER),
        bits_cond=(
            "bits of the rest",
            "of the large image given the small one, per dimension",
            LOWER,
        ),
        bits_of_s=(
            "worth of the small image",
            "what the large one would lose without it, bits per predicted dimension",
            HIGHER,
        ),
        log_z=("log partition function", "estimated by annealed importance sampling, nats", None),
        log_z_upper=("log Z from above", "an estimate that errs on the other side, nats", None),
        log_z_error=("error of log Z", "standard error of the estimate, nats", LOWER),
        energy=("energy", "of held-out images: their reconstruction error", None),
        free_energy_gap=(
            "gap of free energies",
            "held-out minus training, nats: above 0 where it overfits",
            0.0,
        ),
        mean_field_residual=("mean-field residual", "how far its equations are from solved", 0.0),
        inverse_error=("error of the inverse", "of the flow there and back", 0.0),
        nfe=("function evaluations", "of the solver, an example", LOWER),
        cond_number=("condition number", "of the unmixing matrix", LOWER),
        bound=("bound of the evidence", "of an example, up to a constant, nats", HIGHER),
        posterior_error=("error of the posterior", "largest, of a mean, where it is known", LOWER),
        posterior_spread=("width of the posterior", "over the exact one's deviations", 1.0),
        posterior_kl=("KL to the exact posterior", "nats", LOWER),
        inside_90=("within 90 %", "share of held-out values in the predictive interval", 0.9),
        bandwidth=("bandwidth", "of the kernels", None),
        nearest=("distance to the nearest", "training example, euclidean", None),
        sigma2=("noise variance", "that the components leave", None),
        explained_variance_ratio=("explained variance", "share of it, 0 to 1", HIGHER),
    ),
    **_all(
        "reconstruction",
        mse=("squared error", "of reconstructions, per pixel", LOWER),
        mse_ratio=("error over the mean image's", "below 1 it knows more than the mean", LOWER),
        mse_pca=("squared error of PCA", "with as many components", None),
        mse_over_pca=("error over PCA's", "below 1 it beats as many linear components", LOWER),
        mse_mean_image=("squared error of the mean image", "what knowing nothing costs", None),
        psnr=("signal to noise", "of what was made against what was wanted, dB", HIGHER),
        psnr_gain=("signal to noise gained", "dB over the best trivial answer", HIGHER),
        psnr_copy=("signal to noise of a copy", "the source handed back, dB", None),
        psnr_mean=("signal to noise of the mean", "the mean training image, dB", None),
        psnr_bicubic=("signal to noise of bicubic", "the source enlarged, dB", None),
        lr_consistency=("contradiction", "largest |A g(y) - y| in [0, 1]; 0 by construction", 0.0),
        sharpness=("sharpness", "mean slope of what was made over that of what was wanted", 1.0),
        psnr_gan=("signal to noise of G alone", "its colours, enlarged, dB", HIGHER),
        seam=("seam", "difference from the wanted gradients at the patch's edge, 0 to 1", LOWER),
        seam_copy=("seam of copy-paste", "the same of the composite", None),
        ssim=("structural similarity", "to what was wanted, at most 1", HIGHER),
        ssim_gain=("similarity gained", "over the best trivial answer", HIGHER),
        ssim_copy=("similarity of a copy", "the source handed back", None),
        ssim_mean=("similarity of the mean", "the mean training image", None),
        ssim_bicubic=("similarity of bicubic", "the source enlarged", None),
        l1=("absolute error", "a pixel", LOWER),
        l1_share=("error left", "of the least of a trivial answer; 1 is no better", LOWER),
        l1_copy=("absolute error of a copy", "the source handed back", None),
        l1_mean=("absolute error of the mean", "the mean training image", None),
        l1_bicubic=("absolute error of bicubic", "the source enlarged", None),
        cycle_a=("round trip of a", "absolute error a pixel, there and back", LOWER),
        cycle_b=("round trip of b", "absolute error a pixel, there and back", LOWER),
        **_of_domains("recon", "round trip of {}", "error a pixel, as the loss counts it", LOWER),
        same_a=("a left alone", "absolute change of an image that is of a already", LOWER),
        same_b=("b left alone", "absolute change of an image that is of b already", LOWER),
        yaw_correlation=(
            "kept angle",
            "circular correlation, absolute, of what is read off what was made and what was wanted",
            HIGHER,
        ),
        perceptual=("distance of features", "squared, of a frozen network's layer", LOWER),
        const=("what is kept", "squared distance of a frozen network's features, a value", LOWER),
        code_gap=(
            "change of features",
            "squared distance of a frozen network's, over their variance; 2 of any two images",
            LOWER,
        ),
        tid=("a target redrawn", "squared error, a pixel", LOWER),
        tv=("total variation", "of what was made, a pixel", None),
        back_l1=("absolute error of the way back", "of a, from what belongs to it in b", LOWER),
        recon_mse=("squared error", "of reconstructions, per pixel", LOWER),
        recon_permuted=(
            "error of another's",
            "reconstruction, per pixel: what a code is worth",
            None,
        ),
        code_gain=("gain by the code", "squared error a pixel less than with another's", HIGHER),
        recon_l1=("absolute error", "of reconstructions, per pixel in [0, 1]", LOWER),
        l1_ratio=("absolute error over the mean image's", "below 1 it knows more", LOWER),
        feature_mse=("error in D's layers", "squared, a value, mean over layers", LOWER),
        gen_mse=("squared error of samples", "and their reconstructions, per pixel", LOWER),
        gen_permuted=("error of another's", "reconstruction of a sample, per pixel", None),
        code_mse=("error of the code", "of samples, per dimension", LOWER),
        hole_mse=("squared error of holes", "of their completions, per pixel in [0, 1]", LOWER),
        hole_mse_mean=("the mean image's", "squared error in the same holes", None),
        hole_gain=("gain over the mean image", "squared error of a hole that is saved", HIGHER),
        recon_bce=("cross-entropy", "of reconstructions, nats an example", LOWER),
        denoise_bce=("denoising cross-entropy", "nats an example", LOWER),
        walkback_bce=("walkback cross-entropy", "over the steps of the walk, nats", LOWER),
        llike=("error in D's features", "of reconstructions, nats up to a constant", LOWER),
        llike_ratio=("feature error over the mean image's", "below 1 it knows more", LOWER),
        energy_ratio=(
            "energy over the mean image's",
            "of held-out images; below 1 D knows more than the mean",
            LOWER,
        ),
        noise_auc=(
            "data or noise",
            "how often uniform noise has more energy than a held-out image",
            HIGHER,
        ),
        auroc=("AUROC", "how often an unseen class scores higher; 0.5 is chance", HIGHER),
        auroc_residual=("AUROC of the residual", "of R alone; 0.5 is chance", HIGHER),
        auroc_discrimination=("AUROC in D's features", "of D alone; 0.5 is chance", HIGHER),
        inertia=("inertia", "squared distance to the nearest centroid, an example", LOWER),
        inertia_ratio=("inertia over the variance", "0 to 1", LOWER),
        pixel_mean_error=("error of the mean image", "of samples against the data", LOWER),
    ),
    **_all(
        "classes",
        acc=("accuracy", "of the model's own classifier on held-out data", HIGHER),
        accuracy=("accuracy", "of classes on held-out data", HIGHER),
        bayes_accuracy=(
            "accuracy by Bayes' rule",
            "of the class under which x is likeliest",
            HIGHER,
        ),
        cluster_acc=("cluster accuracy", "if each category takes its most frequent class", HIGHER),
        purity=("purity", "share of examples in clusters of their class", HIGHER),
        c_acc=("classifier's accuracy", "on training batches", HIGHER),
        c_accuracy=("classifier's accuracy", "on held-out data", HIGHER),
        c_consistency=(
            "kept class",
            "share of samples that its classifier takes for their class",
            HIGHER,
        ),
        class_acc_real=("class of data", "share that D's classifier gets right", HIGHER),
        class_acc_fake=(
            "class of samples",
            "share that D's classifier takes for their own",
            HIGHER,
        ),
        nmi=("normalised mutual information", "of categories and classes, 0 to 1", HIGHER),
        mi_cat=("information of the category", "a lower bound, nats", HIGHER),
        mi_cont=("information of the continuous codes", "a lower bound, nats", HIGHER),
        class_kept=(
            "kept class",
            "share of what was made that a classifier takes for the class of its source",
            HIGHER,
        ),
        class_kept_copy=("kept class of a copy", "the same of the sources themselves", None),
        class_kept_true=("kept class of the truth", "the same of what was wanted", None),
        pair_labels=("pairs of one class", "share whose two images classifiers agree on", HIGHER),
        acc_source=("accuracy on the source", "of the domain whose labels it was taught", HIGHER),
        own_mode=("own mode", "share of samples nearest to the centre of their class", HIGHER),
    ),
    **_all(
        "diversity",
        mode_coverage=(
            "answers reached",
            "share of what was wanted that is the nearest to something made",
            HIGHER,
        ),
        modes=("modes", "components of the mixture that samples reach", HIGHER),
        ms_ssim=("likeness within a class", "MS-SSIM of samples; of the data: ms_ssim_real", LOWER),
        ms_ssim_real=("likeness within a class of data", "MS-SSIM of data", None),
        chain_div=("spread of the chains", "distance of what two make of one code", None),
        diversity=(
            "diversity",
            "mean squared difference of two samples of one class; 0 is one picture a class",
            HIGHER,
        ),
    ),
    **_all(
        "fidelity",
        pair_agree=(
            "agreement of pairs",
            "share of pixels of b on the side of the middle level where a, changed, has them",
            HIGHER,
        ),
        pair_random=("agreement of strangers", "the same for a and b of two samples", None),
        hq=("near a mode", "share of samples within reach of a mode's centre", HIGHER),
        hq_strict=("within three deviations", "share of samples as near as data are", HIGHER),
        rank_new=(
            "data above samples",
            "how often D ranks a held-out example above a sample, .5 where it cannot tell",
            None,
        ),
        rank_old=(
            "new above old stage",
            "how often D ranks a sample above one of the stage before",
            HIGHER,
        ),
    ),
    **_all(
        "game",
        d_acc=("D's accuracy", "share that it gets right; chance is .5, of three kinds .33", None),
        adversarial=("fooling D", "nats that it costs G", None),
        gang=("fooling D", "nats that it costs G, by samples of both domains", None),
        d_acc_real=("D right on data", "share of data that D takes for data", None),
        d_acc_fake=("D right on samples", "share of samples that D takes for samples", None),
        d_acc_prior=("D right on draws", "share of draws from the prior that D knows", None),
        d_acc_recon=("D right on reconstructions", "share of them that D knows", None),
        d_real=("D's view of data", "mean probability of being real", None),
        d_fake=("D's view of samples", "mean probability of being real", None),
        d_prior=("D's view of draws", "mean probability of being real", None),
        d_recon=("D's view of reconstructions", "mean probability of being real", None),
        jsd_bound=(
            "Jensen-Shannon bound",
            "a lower bound of the divergence, 0 to log 2 nats",
            None,
        ),
        div=("divergence", "as D estimates it", None),
        kl_est=("KL from data", "of what is made, nats, as D's logits have it", None),
        div_lb=("divergence, lower bound", "as D estimates it", None),
        **_of_domains("w", "Wasserstein estimate of {}", "its critic's, in its own scale", None),
        w=("Wasserstein estimate", "the critic's, in its own scale", None),
        w_est=("Wasserstein estimate", "the critic's, in its own scale", None),
        k_t=("k_t", "weight of samples in D's loss, 0 to 1, which the controller sets", None),
        m_global=("M_global", "the paper's measure of convergence", LOWER),
        balance=("balance", "γ L(x) - L(G(z)), which the controller drives to 0", 0.0),
        recon_real=("L(x)", "D's reconstruction error of data", LOWER),
        recon_fake=("L(G(z))", "D's reconstruction error of samples", None),
        energy_real=("energy of data", "D's reconstruction error", LOWER),
        energy_fake=("energy of samples", "D's reconstruction error", None),
        hinge_active=("active hinge", "share of samples with less energy than the margin", None),
        pt=("pulling-away term", "how alike the codes of samples are, 0 to 1", LOWER),
        margin=("margin", "of the separating hyperplane", None),
        sv_frac_real=("support vectors, data", "share of data within the margin", None),
        sv_frac_fake=("support vectors, samples", "share of samples within the margin", None),
        active_new=(
            "active margins",
            "share of pairs of data and samples within their margin",
            None,
        ),
        active_old=(
            "active margins, old stage",
            "share of pairs of both stages within theirs",
            None,
        ),
        clip_frac=("clipped weights", "share of the critic's weights at their limit", None),
        gp=("gradient penalty", "how far the critic's slope is from 1", LOWER),
        grad_norm=("slope of the critic", "between data and samples; 1 is wanted", 1.0),
        r1=("R1", "penalty on D's slope at data", LOWER),
        drift=("drift", "penalty on the critic's values of data, which keeps them near 0", None),
        level=("level", "resolution that is trained: 0 the smallest, each further one twice", None),
        alpha=("α", "share of the newest level in what is made and shown, 0 to 1", None),
        path=("path length", "how far an image moves with its style, root mean square", None),
        path_penalty=("path-length penalty", "squared distance of it from its own mean", LOWER),
        ppl_w=(
            "perceptual path length, of pixels",
            "squared change of the image along a path between two styles, over the squared step",
            LOWER,
        ),
        w_norm=("norm of the mean style", "of w's running mean", None),
        residual_ratio=(
            "spread of made details",
            "standard deviation of the finest made residuals over that of the data's",
            1.0,
        ),
        ortho=("orthogonal penalty", "how far G's filters are from orthogonal, from 0 up", LOWER),
        ortho_d=("orthogonal penalty of D", "how far its filters are from orthonormal", LOWER),
        ortho_g=("orthogonal penalty of G", "how far its filters are from orthonormal", LOWER),
        ess=("effective sample size", "of the weights, as a share", HIGHER),
        unused=("unused data", "share of examples that have no weight", LOWER),
        ratio_mean=("mean density ratio", "1 where D is consistent", 1.0),
        log_w_mean=("mean log weight", "of samples", None),
        log_w_var=("variance of log weights", "of samples; 0 on the boundary", LOWER),
        w_mean=("mean weight", "of samples", None),
        fake_max_prob=("surest class of samples", "mean of the largest probability", None),
        hc_real=("entropy of classes, data", "of one example, nats", LOWER),
        hc_fake=("entropy of classes, samples", "of one sample, nats", None),
        hm_real=("entropy of mean classes, data", "over all, nats", HIGHER),
        hm_fake=("entropy of mean classes, samples", "over all, nats", None),
        fm=("feature matching", "distance of mean features", LOWER),
        **_of_domains("fm", "feature matching of {}", "distance of mean features of D", LOWER),
        **_of_domains("gan", "fooling D of {}", "nats that it costs G; in a game no aim", None),
        r=("weight of the round trips", "in G's loss, 0 to 1; the game has the rest", None),
        sup=("supervised loss", "of labelled data, nats", LOWER),
        unl=("unsupervised loss", "of unlabelled data and samples, nats", None),
        d_class=("D's class loss", "nats", LOWER),
        g_class=("G's class loss", "nats", LOWER),
        gan=("adversarial loss", "of the decoder", None),
        cost_real=("D's cost of data", "nats, from 0 up; with the next it sets who skips", None),
        cost_fake=("D's cost of samples", "and of reconstructions, nats, from 0 up", None),
        skipped_d=("skipped steps of D", "how many D has sat out, being too good", None),
        skipped_g=("skipped steps of G", "how many the decoder has sat out, being too good", None),
        l_g=("G's pixel and feature loss", "of reconstructions, squared, from 0 up", LOWER),
        l_gd=("feature matching in D", "squared distance of mean features, from 0 up", LOWER),
        l_gc=("feature matching in C", "the same within each class, from 0 up", LOWER),
        d_label=("D's cost of labelled codes", "nats, the part of its loss on them", None),
        d_acc_mismatched=("wrong labels seen through", "share of such real pairs, 0 to 1", None),
        ce=("label cross-entropy", "of the few labelled examples, nats, from 0 up", LOWER),
        chi2=("Pearson divergence", "estimated from the squares, from 0 up", LOWER),
        clamped=("scores cut off", "share where the conjugate ends; they teach nothing", None),
    ),
    **_all(
        "codes",
        code_mmd=("codes against the prior", "maximum mean discrepancy", LOWER),
        code_mean_max=("largest mean of a code", "over dimensions; the prior's is 0", 0.0),
        code_std_min=("least spread of a code", "over dimensions; the prior's is 1", 1.0),
        code_std_max=("largest spread of a code", "over dimensions; the prior's is 1", 1.0),
    ),
    **_all(
        "training",
        loss=("loss", "what training lowers", LOWER),
        lr=("learning rate", "step size of the optimiser, moved by a schedule", None),
        l2=("weight penalty", "squared scales of the weights, from 0 up", LOWER),
        capacity=("capacity C", "nats that the code is asked to carry at this step", None),
        cross_entropy=("label cross-entropy", "of the class from the code, nats, from 0 up", LOWER),
        tau=("temperature", "of the relaxation", None),
        gap=("gap", "of the bound, between data and chains", None),
        phase=("phase", "pretraining or joint training", None),
        effective_components=("effective components", "exp of the mixture's entropy", None),
        reseeds=("reseeded components", "that had lost their examples", None),
        step=("step", "generator steps", None),
        epoch=("epoch", "passes over the data", None),
    ),
}


def number(value: float, digits: int = 4) -> str:
    """A value in a few digits.

    >>> number(0.123456), number(12345.678)
    ('0.1235', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"


ORDER = {name: i for i, name in enumerate((*OF_SAMPLES, *OTHERS))}
PLAYERS = {"d": "D", "g": "G", "e": "the encoder", "c": "the classifier", "ae": "the auto-encoder"}


def extractor_of(name: str) -> str:
    """The extractor that a score's name ends in, "" for none.

    >>> extractor_of("fid_digitsnet"), extractor_of("nn_auc_pixels"), extractor_of("elbo")
    ('digitsnet', 'pixels', '')
    """
    for score in sorted(OF_SAMPLES, key=len, reverse=True):
        if name.startswith(f"{score}_") and name not in OTHERS:
            return name.removeprefix(f"{score}_")
    return ""


def meaning(key: str) -> Meaning:
    """What a logged value means; of one that is unknown its name alone.

    >>> meaning("val/fid_digitsnet").title, meaning("train/loss_g").title, meaning("val/x").title
    ('Fréchet distance', 'loss of G', 'x')
    """
    part, _, name = key.rpartition("/")
    name = name if part in ("", *PARTS) else key
    if name in OTHERS:
        return OTHERS[name]
    if extractor := extractor_of(name):
        name = name.removesuffix(f"_{extractor}")
    if name in OF_SAMPLES:
        return OF_SAMPLES[name]
    if found := re.fullmatch(r"(loss|lr|grad_norm)_(\w+)", name):
        what, player = found[1], PLAYERS.get(found[2], found[2])
        words = {"loss": "loss", "lr": "learning rate", "grad_norm": "gradient norm"}[what]
        said = {
            "loss": "what its steps lower; in a game no smaller is better",
            "lr": "step size of its optimiser, moved by a schedule",
            "grad_norm": "length of its gradient before it is clipped, from 0 up",
        }[what]
        return Meaning(f"{words} of {player}", said, None, "training")
    if found := re.fullmatch(r"history_(\w+)", name):
        said = "penalty on its distance from its own average over time, from 0 up"
        return Meaning(f"history of {PLAYERS.get(found[1], found[1])}", said, LOWER, "training")
    if found := re.fullmatch(r"(walkback_bce)_(\d+)", name):
        return Meaning(f"walkback, step {found[2]}", "cross-entropy, nats", LOWER, "reconstruction")
    return Meaning(name)

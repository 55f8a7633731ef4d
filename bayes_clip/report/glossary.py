"""The words of the report, for somebody who meets them for the first time."""

from __future__ import annotations

ENGINES: dict[str, str] = {
    "zero_shot": "CLIP as it comes: images are compared with the names of the classes; no labels are used",
    "sgd": "trained as published: where the authors' recipe of gradient steps ends; no prior, and no doubt",
    "map": "the single most plausible set of weights given the labels, and no doubt about it",
    "ekf": "an extended Kalman filter: reads labelled images in batches, keeps a mean and a covariance",
    "laplace": "the most plausible weights, with a Gaussian fitted to the curvature around them",
    "vi": "variational inference: the Gaussian closest to the posterior, found by stochastic gradients",
    "nuts": "samples from the exact posterior by Hamiltonian Monte Carlo: slow, and the yardstick",
}

TERMS: tuple[tuple[str, str], ...] = (
    (
        "Accuracy",
        "The share of test images whose most probable class is the right one.",
    ),
    (
        "Aleatoric and epistemic",
        "Two kinds of doubt. Aleatoric: the image itself is ambiguous, and more labels would not help. "
        "Epistemic: too little has been seen to know, and more labels would help; measured as the mutual "
        "information between the label and the weights, in nats.",
    ),
    (
        "AURC",
        "Area under the risk-coverage curve: the error rate averaged over all shares of images that one "
        "might choose to answer, surest first. Small when the model is accurate and knows where it errs.",
    ),
    (
        "Brier score",
        "The squared distance between the probabilities and the truth (one for the right class, zero for the "
        "others), summed over classes: from 0, perfect, to 2.",
    ),
    (
        "Calibrated",
        "Of all images about which the model is 80% sure, it is right on 80%; and so for every other number.",
    ),
    (
        "ECE",
        "Expected calibration error. Test images are put into 15 bins by confidence; in each, the mean "
        "confidence is compared with the accuracy; the gaps are averaged, weighted by the images in the bin. "
        "Adaptive ECE uses bins of equal size. Classwise ECE does it for the probability of "
        "every class and averages. Smooth ECE blurs instead of binning, as much as the error is large. "
        "Top-label ECE bins the images of every predicted class on their own. Debiased ECE is the root mean "
        "square of the gaps, less what chance alone would show.",
    ),
    (
        "Floor of the ECE",
        "Even a perfectly calibrated model shows gaps, because bins hold few images. The floor is the ECE it "
        "would show on average with the same confidences; differences below it mean nothing.",
    ),
    (
        "FPR95",
        "The share of outside images that get in when the threshold on novelty lets 95% of test images in.",
    ),
    (
        "NLL, or log-loss",
        "Minus the logarithm of the probability given to the right class, averaged, in nats. It rewards "
        "being right and being honest about it; guessing evenly among C classes costs log C.",
    ),
    (
        "Novelty score",
        "How unlike the labelled images an image is. For engines with a covariance: the posterior variance "
        "of the winning logit, large in directions that no label has spoken about, minus its mean, which is "
        "low where no class text fits. For point estimates: one minus the largest probability.",
    ),
    (
        "OOD AUROC",
        "Out of distribution: images that belong to none of the classes. AUROC is the chance that such an "
        "image gets a higher novelty score than a test image; 0.5 is guessing, 1 is perfect.",
    ),
    (
        "Posterior",
        "What is known about the weights after seeing the labels: not one set of weights, but how plausible "
        "every set is. The prior is the same before any label.",
    ),
    (
        "Shots",
        "Labelled images per class.",
    ),
    (
        "Standard error (±)",
        "How far the mean over draws of the labelled images would move if the draws were repeated. In the "
        "comparisons in words, ± is a 95% half width that covers the choice of the test images as well.",
    ),
)

CHECK_TERMS: tuple[tuple[str, str], ...] = (
    (
        "Rank of the truth",
        "How many of the posterior's draws lie below the true value. For a sound engine every rank is as "
        "likely as any other (simulation-based calibration).",
    ),
    (
        "Too narrow, too wide",
        "Narrow: the truth lies at the edges of the posterior too often, which claims more than it knows. "
        "Wide: the truth lies in its middle too often.",
    ),
    (
        "Coverage",
        "The share of true values inside the central interval of a level: half of them should be inside the "
        "50% interval.",
    ),
    (
        "Prior logit variance, s²v",
        "How much a logit varies under the prior: the squared logit scale times the prior variance of a "
        "weight. What compare chooses is usually 10 to 300.",
    ),
    (
        "Pareto-k̂",
        "Whether draws of the posterior could be reweighted to the exact one; below about 0.7 they can.",
    ),
    (
        "Innovation",
        "What a batch says against the filter's prediction of it. A consistent filter is surprised as often "
        "as it says, and its surprises neither repeat nor alternate (whiteness).",
    ),
)

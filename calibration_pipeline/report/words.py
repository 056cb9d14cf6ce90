"""What the report says in words: the question, the verdicts, the methods, the glossary."""

from typing import NamedTuple

QUESTION = (
    "A simulator says how likely every outcome of a coming NASCAR race is. "
    "For each kind of track, do things happen as often as it says?"
)
SIMULATED_NOTE = (
    "These races are simulated from a known truth: the verdicts are about the method, not about real racing."
)
HOW_JUDGED = (
    "Every forecast was judged on races that came after everything it was fitted on. "
    "Raw is what the simulator says; recalibrated is the same after its confidence was corrected by "
    "earlier races."
)


class VerdictWords(NamedTuple):
    """How a verdict is shown: a badge, a CSS class and one sentence."""

    badge: str
    style: str
    meaning: str


VERDICTS: dict[str, VerdictWords] = {
    "trust": VerdictWords(
        "Trust", "trust", "Things happened about as often as the simulator said, without any correction."
    ),
    "trust after recalibration": VerdictWords(
        "Trust after recalibration",
        "repaired",
        "Use the recalibrated probabilities: they held. The simulator's own did not, or are not shown to.",
    ),
    "do not trust": VerdictWords(
        "Do not trust", "distrust", "Even after recalibration, things did not happen as often as forecast."
    ),
    "cannot tell yet": VerdictWords(
        "Cannot tell yet", "unknown", "There is too little evidence for a yes or a no."
    ),
}

METHODS = (
    (
        "Forecasts",
        "A causal Bayesian network is fitted to earlier races and draws many scenarios of each race: "
        "how chaotic it is, who retires, and in which order the rest finish (a reverse Plackett-Luce order). "
        "Where the provenance names a user's scenarios, those are taken in their place. "
        "The share of scenarios in which something happens is its forecast probability.",
    ),
    (
        "Recalibration",
        "For each kind of track a Bayesian model compares earlier forecasts with what "
        "happened and "
        "learns how much sharper or softer the differences between cars should be (the calibration slope, "
        "allowed "
        "to drift from season to season), and how much more or less often cars retire. The correction acts "
        "before "
        "cars are ranked, so every recalibrated scenario is still a possible race.",
    ),
    (
        "Honest tests",
        "Races are taken in blocks, in order of time. A block is forecast and recalibrated with "
        "fits that saw only earlier blocks; a kind of track without earlier races keeps its raw forecast.",
    ),
    (
        "Uncertainty",
        "Cars in one race share its fate, so the race is the unit: every interval is a 95 % "
        "interval "
        "that treats the cars of a race as dependent.",
    ),
    (
        "Verdicts",
        "Fixed rules look at the head-to-head slope, at coverage, at all joint events together and "
        "at the "
        "skill against knowing nothing. Each section lists the evidence that decided.",
    ),
)

PARAMETERS = (
    ("slope_mu", "Logarithm of the calibration slope in the first season: 0 is calibrated."),
    ("slope_sigma", "How far the logarithm of the slope moves from one season to the next."),
    ("noise_sigma", "How much races differ in sharpness, on the same scale."),
    ("intercept", "Correction of how often cars retire, on the logit scale: 0 is none."),
)

REFERENCES = (
    (
        "Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness",
        "https://doi.org/10.1111/j.1467-9868.2007.00587.x",
    ),
    (
        "Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation",
        "https://doi.org/10.1198/016214506000001437",
    ),
    (
        "Czado, Gneiting and Held (2009), Predictive model assessment for count data",
        "https://doi.org/10.1111/j.1541-0420.2009.01191.x",
    ),
    (
        "Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity",
        "https://doi.org/10.1007/s11222-022-10090-6",
    ),
    ("Plackett (1975), The analysis of permutations", "https://doi.org/10.2307/2346567"),
    (
        "Hoffman and Gelman (2014), The No-U-Turn sampler",
        "https://jmlr.org/papers/v15/hoffman14a.html",
    ),
    (
        "Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and "
        "localization: an improved R-hat",
        "https://doi.org/10.1214/20-BA1221",
    ),
    (
        "Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out "
        "cross-validation and WAIC",
        "https://doi.org/10.1007/s11222-016-9696-4",
    ),
)

GLOSSARY = (
    ("95 % interval", "Where the true value plausibly lies, given how many races there were."),
    (
        "Brier score",
        "Mean squared difference between a probability and what happened (0 or 1). Smaller is better.",
    ),
    (
        "Calibrated",
        "What is given a probability of 30 % happens in about 30 of 100 cases, and likewise for every "
        "other number.",
    ),
    (
        "Calibration slope",
        "1 is calibrated. Below 1 the forecast is too sure of itself, above 1 too cautious.",
    ),
    (
        "Contraction",
        "How much of a parameter's prior variance the data removed: 0 means that only the prior assumption "
        "speaks, 1 that the data decide.",
    ),
    (
        "Coverage",
        "Share of finishes that fell inside the forecast's interval. Of 80 % intervals, 80 % should hold "
        "the finish.",
    ),
    (
        "CRPS",
        "Continuous ranked probability score: how far the forecast lay from the finish, in places, "
        "counting the "
        "whole distribution. Smaller is better; it rewards being both sharp and honest.",
    ),
    ("Divergence", "A step in which the fitting algorithm lost its way. There should be none."),
    ("ESS", "Effective sample size: how many independent draws a fit's draws are worth."),
    (
        "Every car equal",
        "The forecast of someone who knows nothing: every place is equally likely for every car.",
    ),
    ("Fold", "A block of consecutive races that is forecast from one fit on the races before it."),
    ("Head to head", "Which of two cars finishes ahead of the other, over all pairs of cars of a race."),
    (
        "Joint event",
        "Something that needs several outcomes at once, such as both cars of a team in the top 10.",
    ),
    (
        "Log score",
        "Logarithm of the probability given to the place that came true. Larger, closer to 0, is better.",
    ),
    (
        "Leave-one-out",
        "How well a model predicts each race when fitted to all others, estimated from one fit to all. "
        "Where Pareto k is above 0.7 the estimate is unsure.",
    ),
    ("Log gain", "Log score minus that of every car equal, per car. Above 0 the forecast knows something."),
    (
        "PIT",
        "The forecast probability of finishing as well as the car did, or better. Over many calibrated "
        "forecasts "
        "all values are equally common.",
    ),
    (
        "R-hat",
        "Whether independent runs of a fit agree: 1.00 is full agreement, above 1.05 the fit is refused.",
    ),
    (
        "RPS",
        "CRPS divided by the number of places but one, so that fields of any size compare. Smaller is "
        "better.",
    ),
    (
        "Skill",
        "Share of the error of every car equal that the forecast removes. 0 is no better, 1 is perfect.",
    ),
    ("Start order", "A forecast that knows nothing but where each car starts."),
    (
        "z",
        "How many standard errors the observed share lies from the predicted. Beyond 2 or 3 is suspicious.",
    ),
)

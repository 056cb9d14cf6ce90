"""What the report says in words: the question, the verdicts, the methods, the glossary."""

from typing import NamedTuple

QUESTION = "Do things happen as often as the simulator says? Judged for each kind of NASCAR track."
SIMULATED_NOTE = (
    "These races are simulated from a known truth: the verdicts are about the method, not about real racing."
)
HOW_JUDGED = (
    "Every forecast was judged on races that came after everything it was fitted on. "
    "Raw is what the simulator says; recalibrated is the same after its confidence was corrected by "
    "earlier races. Words are explained in the glossary at the end."
)


class VerdictWords(NamedTuple):
    """How a verdict is shown: a badge, a CSS class and one sentence."""

    badge: str
    style: str
    meaning: str


VERDICTS: dict[str, VerdictWords] = {
    "trust": VerdictWords(
        "Trust", "trust", "Things happened about as often as the simulator said, uncorrected."
    ),
    "trust after recalibration": VerdictWords(
        "Trust after recalibration",
        "repaired",
        "The recalibrated probabilities held. The simulator's own did not, or are not shown to.",
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
        "Reliability",
        "Forecast probabilities are set against what happened by isotonic regression (CORP), which needs no "
        "bins; equal forecasts stay together. The grey band comes from scenarios taken as results, and keeps "
        "the dependence between the cars of a race.",
    ),
    (
        "Joint events",
        "An event that needs several outcomes is counted in scenarios and results alike. All events of a "
        "forecast are judged together, so that looking at many is no alarm by itself. The same scenarios, "
        "every car shuffled on its own, show what independent cars would do.",
    ),
    (
        "Verdicts",
        "Fixed rules look at the head-to-head slope, at coverage, at all joint events together, at whether "
        "the results rule out independent cars, and at the skill against every car equal. Each section lists "
        "the evidence that decided.",
    ),
)

PARAMETERS = (
    ("slope_mu", "Logarithm of the calibration slope in the first season: 0 is calibrated."),
    ("slope_sigma", "How far the logarithm of the slope moves from one season to the next."),
    ("noise_sigma", "How much races differ in sharpness, on the same scale."),
    ("intercept", "Correction of how often cars retire, on the logit scale: 0 is none."),
    ("log_slope", "Logarithm of the calibration slope of a season: 0 is calibrated."),
)
STATISTICS = {
    "rank_correlation": "rank correlation of forecast order and finish",
    "n_incidents": "cars that retired",
}
"""Statistics of a race in the predictive checks."""

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
    (
        "Dimitriadis, Gneiting and Jordan (2021), Stable reliability diagrams for probabilistic classifiers",
        "https://doi.org/10.1073/pnas.2016191118",
    ),
    (
        "Gneiting, Stanberry, Grimit, Held and Johnson (2008), Assessing probabilistic forecasts of "
        "multivariate quantities",
        "https://doi.org/10.1007/s11749-008-0114-x",
    ),
    (
        "Scheuerer and Hamill (2015), Variogram-based proper scoring rules for probabilistic forecasts",
        "https://doi.org/10.1175/MWR-D-14-00269.1",
    ),
    (
        "Bradley and Terry (1952), Rank analysis of incomplete block designs",
        "https://doi.org/10.2307/2334029",
    ),
    (
        "Westfall and Young (1993), Resampling-based multiple testing, Wiley",
        "https://www.wiley.com/en-us/9780471557616",
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
        "Bradley-Terry",
        "A forecast of who beats whom from nothing but how often each car beat others in earlier races.",
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
    (
        "Discrimination",
        "The part of a Brier score that a forecast gains by telling likely from unlikely cars apart. Larger "
        "is better.",
    ),
    ("Divergence", "A step in which the fitting algorithm lost its way. There should be none."),
    (
        "Energy score, variogram score",
        "CRPS for the finishes of all cars of a race at once; the second looks at the gaps between cars, and "
        "so at how they depend on each other. Smaller is better.",
    ),
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
        "Miscalibration",
        "The part of a Brier score that would vanish if every forecast probability were replaced by how "
        "often things then happened. Chance alone makes it a little more than 0.",
    ),
    ("Nat", "Unit of the log score: one nat less makes what happened 2.7 times less probable."),
    (
        "p (p-value)",
        "How often chance alone would make a calibrated forecast look at least this wrong. Below 0.05 is "
        "suspicious.",
    ),
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
        "Share of the error of a simpler forecast that this forecast removes. 0 is no better, 1 is perfect.",
    ),
    (
        "Sharpness",
        "Width of the forecast's intervals. Narrower is better, but only among calibrated forecasts.",
    ),
    ("Start order", "A forecast that knows nothing but where each car starts."),
)

"""Texts of the report: question, verdicts, methods, parameters, references, glossary."""

from typing import NamedTuple

from calibration_pipeline.forecasters.folder import Form

QUESTION = "Do events happen as often as forecast? Judged for each archetype of NASCAR track, market and era."
SIMULATED_NOTE = (
    "These races are simulated from a known truth: the verdicts are about the method, not about real racing."
)
FITTED_BEFORE = "Every forecast was judged on races that came after all races it was fitted on."
FITTED_UNKNOWN = (
    "Each race was recalibrated with a fit to earlier races only. It is not known which races the forecasts "
    "in the file were fitted on."
)
"""The sentences on a user's forecaster, in place of `FITTED_BEFORE`."""
HOW_JUDGED = (
    "Raw is the forecaster's own forecast; recalibrated is the same forecast after its confidence was "
    "corrected with earlier races. The glossary at the end explains the terms."
)


class VerdictWords(NamedTuple):
    """Display of a verdict: a badge, a CSS class and one sentence."""

    badge: str
    style: str
    meaning: str


VERDICTS: dict[str, VerdictWords] = {
    "trust": VerdictWords("Trust", "trust", "Events happened about as often as the raw forecast predicted."),
    "trust after recalibration": VerdictWords(
        "Trust after recalibration",
        "recalibrated",
        "The recalibrated probabilities hold. The raw probabilities do not, or the evidence is not enough.",
    ),
    "do not trust": VerdictWords(
        "Do not trust", "rejected", "Even after recalibration, events did not happen as often as forecast."
    ),
    "cannot tell yet": VerdictWords(
        "Cannot tell yet", "unknown", "There is too little evidence for a yes or a no."
    ),
}

MARKETS_OF_FORM = {
    Form.POSITIONS: "Probabilities of positions say nothing about two cars at once, nor about retirements. "
    "Head to head, who retires, how many retire and joint events can be judged for scenarios alone.",
    Form.EVENTS: "The columns of the matrix are the markets of the forecaster. Pairs of cars, the finish "
    "distribution, retirements and joint events cannot be judged from them.",
}
"""Form to a sentence on the markets that it does not give."""

SCENARIO_METHODS = (
    (
        "Forecasts",
        "A causal Bayesian network is fitted to earlier races and draws many scenarios of each race: "
        "how chaotic it is, who retires, and in which order the rest finish (a reverse Plackett-Luce order). "
        "Where the provenance names a user's scenarios, those replace the network's scenarios. "
        "The share of scenarios in which an event happens is its forecast probability; those of single cars "
        "are smoothed by half a count.",
    ),
    (
        "Recalibration",
        "A Bayesian model compares earlier forecasts with the results. It estimates how much larger or "
        "smaller the differences between cars should be (the calibration slope), and how much more or less "
        "often cars retire. Both follow the races of all archetypes, race by race. The correction acts "
        "before cars are ranked, so every recalibrated scenario is still a possible race.",
    ),
    (
        "Walk-forward tests",
        "Races are taken in blocks, in order of time. The network forecasts a block with fits that used only "
        "earlier blocks. Forecasts are recalibrated race by race with earlier races only; an archetype "
        "without earlier races keeps its raw forecast.",
    ),
    (
        "Uncertainty",
        "Cars in one race are dependent, so the race is the unit: every interval is a 95 % "
        "interval that treats the cars of a race as dependent.",
    ),
    (
        "Reliability",
        "Isotonic regression (CORP) compares forecast probabilities with outcomes. It needs no bins, and "
        "equal forecasts stay together. The grey band comes from scenarios taken as results, and keeps the "
        "dependence between the cars of a race.",
    ),
    (
        "Joint events",
        "An event that needs several outcomes is counted in scenarios and in results. One joint test "
        "judges all events of a forecast, which corrects for their number. The same scenarios, with each car "
        "shuffled separately, represent independent cars.",
    ),
    (
        "Monitoring",
        "After each race the result is ranked among its own scenarios, market by market. If the forecast is "
        "calibrated, all ranks are equally common, and bets against that earn nothing on average. The "
        "e-value is the capital of the bets: a calibrated forecast reaches 20 with a probability of at most "
        "5 %, however often one looks.",
    ),
    (
        "Verdicts",
        "Fixed rules test each market: the slope of its probabilities or the coverage of its intervals, its "
        "skill over a forecast without information, and for joint events the joint test and independence "
        "between cars. Holm's method corrects for the markets of a row. Each section lists the evidence.",
    ),
)

PROBABILITY_METHODS = {
    Form.POSITIONS: (
        (
            "Forecasts",
            "The forecaster gives each car a probability of every finish position. Probabilities of a win "
            "and of the top 5 and top 10 are sums of these.",
        ),
        (
            "Recalibration",
            "A Bayesian model compares earlier probabilities with the results, and estimates the factor on "
            "their log odds (the calibration slope) and a shift. The slope follows the races of all "
            "archetypes, race by race. Recalibrated probabilities of a race sum to 1 for each car and for "
            "each position.",
        ),
    ),
    Form.EVENTS: (
        (
            "Forecasts",
            "The forecaster gives each car a probability of a win or of a finish in the top n. Odds lose the "
            "margin of the bookmaker first.",
        ),
        (
            "Recalibration",
            "For each market, a Bayesian model compares earlier probabilities with the results. It estimates "
            "the factor on their log odds (the calibration slope) and a shift. The slope follows the races "
            "of all archetypes, race by race. Recalibrated probabilities sum to the number of winners.",
        ),
    ),
}
OF_SCENARIOS_ALONE = ("Forecasts", "Recalibration", "Reliability", "Joint events", "Monitoring", "Verdicts")
RULES_OF_PROBABILITIES = (
    (
        "Reliability",
        "Isotonic regression (CORP) compares forecast probabilities with outcomes. It needs no bins, and "
        "equal forecasts stay together.",
    ),
    (
        "Verdicts",
        "Fixed rules test each market: the slope of its probabilities or the coverage of its intervals, and "
        "its skill over a forecast without information. Holm's method corrects for the markets of a row. "
        "Each section lists the evidence.",
    ),
)
METHODS = {
    Form.SCENARIOS: SCENARIO_METHODS,
    **{
        form: (
            *own,
            *(item for item in SCENARIO_METHODS if item[0] not in OF_SCENARIOS_ALONE),
            *RULES_OF_PROBABILITIES,
        )
        for form, own in PROBABILITY_METHODS.items()
    },
}
"""Form to its methods, a name and a text each."""

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
        "Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks (temperature)",
        "https://arxiv.org/abs/1706.04599",
    ),
    (
        "Holm (1979), A simple sequentially rejective multiple test procedure",
        "https://www.jstor.org/stable/4615733",
    ),
    (
        "Westfall and Young (1993), Resampling-based multiple testing, Wiley",
        "https://www.wiley.com/en-us/9780471557616",
    ),
    (
        "Arnold, Henzi and Ziegel (2023), Sequentially valid tests for forecast calibration",
        "https://doi.org/10.1214/22-AOAS1697",
    ),
    (
        "Choe and Ramdas (2024), Comparing sequential forecasters",
        "https://doi.org/10.1287/opre.2021.0792",
    ),
    (
        "Allen, Ziegel and Ginsbourger (2024), Assessing the calibration of multivariate probabilistic "
        "forecasts",
        "https://doi.org/10.1002/qj.4647",
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
    ("95 % interval", "Range of plausible true values, given the number of races."),
    (
        "Archetype",
        "A kind of track: superspeedway, intermediate, short track or road course. Each archetype has its "
        "own calibration and its own verdicts.",
    ),
    (
        "Brier score",
        "Mean squared difference between a probability and the outcome (0 or 1). Smaller is better.",
    ),
    (
        "Bradley-Terry",
        "A head-to-head forecast that uses only how often each driver beat others in earlier races.",
    ),
    (
        "Calibrated",
        "Events with a probability of 30 % happen in about 30 of 100 cases, and likewise for every other "
        "probability.",
    ),
    (
        "Calibration slope",
        "1 is calibrated. Below 1 the forecast is too sure of itself, above 1 too cautious.",
    ),
    (
        "Contraction",
        "Share of a parameter's prior variance that the data removed: at 0 the estimate rests on the prior, "
        "at 1 on the data.",
    ),
    (
        "Coverage",
        "Share of finishes inside the forecast's interval. Of 80 % intervals, 80 % should contain the "
        "finish.",
    ),
    (
        "CRPS",
        "Continuous ranked probability score: distance between the forecast distribution and the finish, in "
        "positions. Smaller is better; it rewards sharp and calibrated forecasts.",
    ),
    (
        "Discrimination",
        "The part of a Brier score that a forecast gains by separating likely from unlikely cases. Larger is "
        "better.",
    ),
    ("Divergence", "A step in which the sampler became numerically unstable. There should be none."),
    (
        "E-value",
        "Capital of bets against calibration that started at 1. The larger it is, the stronger is the "
        "evidence; 20 is an alarm.",
    ),
    (
        "Energy score, variogram score",
        "CRPS for the finishes of all cars of a race at once; the variogram score uses the gaps between "
        "cars, and so their dependence. Smaller is better.",
    ),
    ("Era", "Seasons that are judged together, for example those since a new car."),
    ("ESS", "Effective sample size: number of independent draws with the same information as a fit's draws."),
    (
        "Every car equal",
        "A forecast without information: every position is equally likely for every car.",
    ),
    ("Fold", "A block of consecutive races that is forecast from one fit on the races before it."),
    ("Head to head", "Which of two cars finishes ahead, over all pairs of cars of a race."),
    (
        "Joint event",
        "An event that needs several outcomes at once, such as both cars of a team in the top 10.",
    ),
    (
        "Log score",
        "Logarithm of the probability given to the observed position. Larger, closer to 0, is better.",
    ),
    (
        "Leave-one-out",
        "Predictive score of a model for each race when fitted to all others, estimated from one fit to all. "
        "Where Pareto k is above 0.7 the estimate is unreliable.",
    ),
    ("Log gain", "Log score minus that of every car equal, per car. Above 0 the forecast has information."),
    (
        "Miscalibration",
        "The part of a Brier score that vanishes if every forecast probability is replaced by the observed "
        "share. Chance alone makes it a little more than 0.",
    ),
    ("Market", "A question to a forecast: who wins, who finishes in the top 5, how many cars retire."),
    ("Nat", "Unit of the log score: one nat less is a probability of the outcome 2.7 times smaller."),
    (
        "p (p-value)",
        "Probability that a calibrated forecast deviates at least this much by chance. Below 0.05 is "
        "suspicious.",
    ),
    (
        "PIT",
        "Forecast probability of the observed finish or a better one. Over many calibrated forecasts all "
        "values are equally common.",
    ),
    (
        "R-hat",
        "Agreement of independent chains of a fit: 1.00 is full agreement, above 1.05 the fit is refused.",
    ),
    (
        "RPS",
        "CRPS divided by the number of cars minus one, so that fields of any size are comparable. Smaller is "
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
    (
        "Slope of a market",
        "Factor on the log odds of its probabilities that fits the results best. 1 is calibrated, below 1 "
        "too sure, above 1 too cautious. For wins it is the inverse of the temperature.",
    ),
    ("Start order", "A forecast that uses only the start position of each car."),
)

"""Priors of the latent and the marginal calibration map: standard deviations around "calibrated".

The pooled fit has one more, `calibration.latent.PRIOR_ARCHETYPE_SIGMA`. The network's are in
`scenarios.fit.posterior`.
"""

PRIOR_SLOPE_MU = 0.3
"""slope_mu ~ Normal(0, 0.3): logarithm of the calibration slope."""
PRIOR_SLOPE_SIGMA = 0.25
"""slope_sigma ~ HalfNormal(0.25): how much the log slope differs from season to season."""
PRIOR_NOISE_SIGMA = 0.5
"""noise_sigma ~ HalfNormal(0.5): how much the log slope differs from race to race."""
PRIOR_INTERCEPT = 0.5
"""intercept ~ Normal(0, 0.5): shift of the logit."""

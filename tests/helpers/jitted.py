"""Functions of the library in compiled form, as samplers call them.

Outside of jit, JAX compiles each operation by itself, for every shape: half a second for a short function.
"""

import jax

from calibration_pipeline.scenarios.fit import posterior
from calibration_pipeline.stats import chebyshev, plackett_luce, race_noise

evaluate = jax.jit(chebyshev.evaluate)
integrated_log_likelihood = jax.jit(race_noise.integrated_log_likelihood)
log_probability = jax.jit(plackett_luce.log_probability)
rank_columns = jax.jit(plackett_luce.rank_columns)
stages_narrow = jax.jit(plackett_luce.stages_narrow)
order_log_likelihood = jax.jit(posterior.order_log_likelihood, static_argnames="structure")

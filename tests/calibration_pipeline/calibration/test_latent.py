"""The latent map: its likelihood, recovery of planted sharpness, stored fits, pooling and comparison."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import (
    gather_evidence,
    log_likelihood,
    prior_draws,
)
from calibration_pipeline.calibration.latent import summarise
from calibration_pipeline.calibration.pooling import compare_calibrations, fit_pooled
from calibration_pipeline.calibration.race_curves import (
    LOG_SHARPNESS_BOX,
    N_SHARPNESS_NODES,
    join_curves,
    observe,
    reference_sharpness,
    tabulate,
    tabulate_races,
)
from calibration_pipeline.calibration.summaries import convergence_by_fold
from calibration_pipeline.calibration.surfaces import read_surfaces, tabulate_surfaces
from calibration_pipeline.mcmc.convergence import judge_convergence
from calibration_pipeline.mcmc.draws import read_draws
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT
from calibration_pipeline.schemas.datasets import CalibrationPosterior
from calibration_pipeline.schemas.frames import ModelComparison
from helpers.jitted import evaluate, integrated_log_likelihood, log_probability
from helpers.planted_races import N_CARS, QUICK, SEASONS, fit_races, planted
from helpers.programs import compiled_programs


def latest_evidence(ensemble: xr.Dataset, results: pl.DataFrame):
    curves = tabulate(ensemble, observe(ensemble, results), seed=1)
    season = np.searchsorted(SEASONS, ensemble["season"].values)
    return gather_evidence(curves, season, np.ones(ensemble.sizes["race"], bool))


@pytest.fixture(scope="module")
def overconfident() -> tuple[xr.Dataset, pl.DataFrame, xr.DataTree]:
    ensemble, results = planted(0.7, incident_shift=0.6)
    fit = fit_races(ensemble, results, Archetype.INTERMEDIATE, seed=1, **QUICK)
    return ensemble, results, fit


def test_the_table_is_the_likelihood():
    """Curves read at log s equal the reverse Plackett-Luce log-likelihood of the sharpened utilities."""
    ensemble, results = planted(1.0, n_races=4)
    observed = observe(ensemble, results)
    curves = tabulate(ensemble, observed, seed=1)
    order = np.where(observed.running_order > 0, observed.running_order, 99).argsort(axis=1)
    ordered = np.take_along_axis(ensemble["utility"].values, order, axis=1)
    taking_part = np.take_along_axis(observed.running_order > 0, order, axis=1)
    for log_s in (-1.9, -0.3, 0.0, 0.4, 1.7):
        exact = log_probability(np.exp(log_s) * ordered, taking_part)
        exact = exact - log_probability(ordered, taking_part)
        got = evaluate(curves.order[:4], np.full(4, log_s, np.float32), *LOG_SHARPNESS_BOX)
        np.testing.assert_allclose(got, exact, atol=2e-3, rtol=1e-4)


@pytest.mark.slow
def test_surfaces_are_the_sum_of_their_races():
    """Read between grid points, a surface equals the races' own integrated likelihoods."""
    ensemble, results = planted(0.8, n_races=32)
    evidence = latest_evidence(ensemble, results)
    n_seasons = len(SEASONS) + 1
    surfaces = summarise(evidence, tabulate_surfaces(evidence.order), n_seasons).order
    rng = np.random.default_rng(0)

    def by_race(log_slope: np.ndarray, noise: float) -> np.ndarray:
        centre = evidence.reference.log_slope + log_slope[evidence.season]
        spread = np.hypot(evidence.reference.noise_sigma, noise)
        races = integrated_log_likelihood(evidence.order, centre, spread, *LOG_SHARPNESS_BOX)
        return np.bincount(evidence.season, evidence.weight * np.asarray(races), n_seasons)

    for _ in range(20):
        log_slope, noise = rng.normal(0, 0.5, n_seasons), abs(rng.normal(0, 0.4))
        at = evidence.reference.log_slope + log_slope, np.hypot(evidence.reference.noise_sigma, noise)
        got = np.asarray(read_surfaces(surfaces, *at))
        np.testing.assert_allclose(got, by_race(log_slope, noise), atol=0.01, rtol=1e-3)
    assert (np.asarray(read_surfaces(surfaces, np.full(n_seasons, 6.0), 0.0)) <= 0).all()


def test_curves_continue_without_exploding():
    """Far outside the table the log-likelihood is finite, and falls linearly where cars are too far apart."""
    ensemble, results = planted(1.0, n_races=4)
    curves = tabulate(ensemble, observe(ensemble, results), seed=1).order[:4]
    lower, upper = LOG_SHARPNESS_BOX

    def at(x: float) -> np.ndarray:
        return np.asarray(evaluate(curves, np.full(4, x, np.float32), lower, upper))

    for end, out in ((upper, 1.0), (lower, -1.0)):
        step, far = at(end + out) - at(end), at(end + 3.8 * out) - at(end)
        np.testing.assert_allclose(far, 3.8 * step, rtol=1e-3, atol=2e-2)
    assert (at(4.0) < at(upper)).all()
    assert (at(6.0) < at(4.0)).all()
    np.testing.assert_allclose(at(-6.0), at(lower), atol=2.0)


def test_garbage_in_padding_changes_nothing():
    """Slots beyond the field may hold anything."""
    ensemble, results = planted(1.0, n_races=4)
    wide = ensemble.pad(driver=(0, 3), constant_values=0)
    for name in ("driver_id", "name", "team", "make"):
        wide[name] = wide[name].astype(str)
    dirty = wide.copy(deep=True)
    dirty["utility"][:, N_CARS:] = 1e20
    dirty["incident_logit"][:, N_CARS:] = np.nan
    clean_curves = tabulate(wide, observe(wide, results), seed=1)
    dirty_curves = tabulate(dirty, observe(dirty, results), seed=1)
    narrow = tabulate(ensemble, observe(ensemble, results), seed=1)
    for name in narrow._fields:
        np.testing.assert_array_equal(getattr(dirty_curves, name), getattr(clean_curves, name))
        np.testing.assert_allclose(getattr(narrow, name), getattr(clean_curves, name), atol=1e-4)


def test_reference_of_bare_scenarios_is_one_and_team_effects_lower_it():
    """Team effects blunt what a bare likelihood sees, in a calibrated ensemble too."""
    reference = {}
    for scale in (0.0, 1.0):
        ensemble, results = planted(1.0, n_races=64, team_scale=scale)
        curves = tabulate(ensemble, observe(ensemble, results), seed=1)
        reference[scale] = reference_sharpness(curves, np.ones(64, np.float32))
    assert reference[0.0].log_slope == pytest.approx(0.0, abs=0.03)
    assert reference[0.0].noise_sigma < 0.15
    assert -0.5 < reference[1.0].log_slope < -0.1


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.7, 1.4])
def test_planted_slopes_are_recovered(slope):
    """The 95 % interval of the mean log slope over seasons holds the truth, and excludes 1."""
    ensemble, results = planted(slope, seed=3)
    fit = fit_races(ensemble, results, Archetype.INTERMEDIATE, seed=2, **QUICK)
    mean = np.exp(fit["posterior"]["log_slope"].sel(season=SEASONS).mean("season").values)
    lower, upper = np.quantile(mean, (0.025, 0.975))
    assert lower < slope < upper
    assert not lower < 1 < upper


@pytest.mark.slow
def test_calibrated_ensembles_with_team_effects_get_slope_one():
    ensemble, results = planted(1.0, team_scale=0.8, n_races=64, seed=5)
    fit = fit_races(ensemble, results, Archetype.INTERMEDIATE, seed=2, **QUICK)
    mean = np.exp(fit["posterior"]["log_slope"].sel(season=SEASONS).mean("season").values)
    lower, upper = np.quantile(mean, (0.025, 0.975))
    assert lower < 1 < upper
    assert fit.attrs["reference_slope"] < 0.95


@pytest.mark.slow
def test_the_incident_shift_is_recovered(overconfident):
    shift = overconfident[2]["posterior"]["intercept"].values
    assert np.quantile(shift, 0.005) < 0.6 < np.quantile(shift, 0.995)
    assert shift.mean() > 0.3


@pytest.mark.slow
def test_fits_converge_at_the_default_settings(overconfident):
    ensemble, results, _ = overconfident
    fit = fit_races(ensemble, results, Archetype.INTERMEDIATE, seed=1)
    assert fit["posterior"].sizes["chain"] == 4
    assert fit["posterior"].sizes["draw"] == 1500
    assert judge_convergence(read_draws(fit)).converged
    assert int(fit["sample_stats"]["diverging"].sum()) == 0


def test_a_fit_keeps_its_convergence(overconfident):
    """The stored convergence equals the convergence of the stored draws."""
    kept = convergence_by_fold(overconfident[2])
    assert kept["fold"].unique().to_list() == ["latest"]
    expected = judge_convergence(read_draws(overconfident[2])).table
    assert_frame_equal(kept.drop("fold", "divergences"), expected, check_row_order=False)
    assert kept["divergences"].sum() == 0


def test_a_fit_opens_by_itself(overconfident, tmp_path):
    """NetCDF with every group that ArviZ knows, and it meets its contract."""
    fit = overconfident[2]
    CalibrationPosterior.validate(fit, lazy=True)
    fit.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    again = xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    groups = "posterior prior posterior_predictive prior_predictive log_likelihood sample_stats"
    assert {*groups.split(), "observed_data", "constant_data", "convergence"} <= set(again.children)
    assert again["posterior"].sizes["chain"] == QUICK["n_chains"]
    assert again["posterior"].sizes["draw"] == QUICK["n_samples"]
    assert again["log_likelihood"]["result"].dims == ("chain", "draw", "race")
    xr.testing.assert_identical(again["posterior"].to_dataset().load(), fit["posterior"].to_dataset())


def test_predictive_checks_cover_the_observed_races(overconfident):
    """Replicated rank correlations straddle the observed ones; under the prior they spread wider."""
    fit = overconfident[2]
    observed = fit["observed_data"]["rank_correlation"]
    replicated = fit["posterior_predictive"]["rank_correlation"]
    p = (replicated.mean("race") < observed.mean("race")).mean()
    assert 0.01 < float(p) < 0.99
    prior = fit["prior_predictive"]["rank_correlation"].mean("race").std()
    assert float(prior) > float(replicated.mean("race").std())


def test_a_fit_to_no_race_is_the_prior():
    ensemble, results = planted(1.0, n_races=4)
    fit = fit_races(ensemble.isel(race=[]), results, Archetype.INTERMEDIATE, seed=1, **QUICK)
    assert float(fit["posterior"]["slope_mu"].std()) == pytest.approx(0.3, abs=0.03)
    assert float(fit["posterior"]["intercept"].std()) == pytest.approx(0.5, abs=0.05)
    assert_same_law(fit["posterior"].to_dataset(), fit["prior"].to_dataset())


def assert_same_law(draws: xr.Dataset, expected: xr.Dataset) -> None:
    """Means and standard deviations agree within a tenth of the standard deviation."""
    for name, values in expected.data_vars.items():
        spread = values.std(("chain", "draw"))
        assert bool(
            (abs(draws[name].mean(("chain", "draw")) - values.mean(("chain", "draw"))) < spread / 10).all()
        )
        assert bool((abs(draws[name].std(("chain", "draw")) - spread) < spread / 10).all())


def test_missing_results_and_short_chains_are_refused(overconfident):
    ensemble, results, _ = overconfident
    with pytest.raises(ValueError, match=r"1 are missing, the first is driver_id 'd03' in race_id 202105"):
        observe(ensemble, results.filter(~((pl.col("race_id") == 202105) & (pl.col("driver_id") == "d03"))))
    with pytest.raises(ValueError, match="n_samples must be at least 500 for a stored fit, got 200"):
        fit_races(ensemble, results, Archetype.INTERMEDIATE, n_samples=200)


def test_races_whose_forecast_knows_no_retirement_count_all_cars_as_running():
    """Race by race, also where a join has dropped `running` because another season lacks it."""
    ensemble, results = planted(1.0, n_races=4)
    blind = ensemble.drop_vars("running")
    blind["incident_logit"] = blind["incident_logit"].copy()
    blind["incident_logit"][:2] = NO_INCIDENT_LOGIT
    assert (observe(ensemble, results).running_order == 0).any(axis=1).all()
    mixed, seen = observe(blind, results), observe(ensemble, results)
    np.testing.assert_array_equal(mixed.running_order[:2], mixed.finish_position[:2])
    np.testing.assert_array_equal(mixed.running_order[2:], seen.running_order[2:])


def test_nothing_changed_has_likelihood_zero_without_reference_noise():
    """At log slope 0, no noise and no shift the curves are centred, race by race."""
    ensemble, results = planted(1.0, n_races=8)
    evidence = latest_evidence(ensemble, results)
    bare = evidence._replace(reference=type(evidence.reference)(0.0, 0.0))
    nothing = np.zeros((1, 1))
    unchanged = np.zeros((1, 1, len(SEASONS) + 1))
    got = log_likelihood(bare, tabulate_surfaces(bare.order), unchanged, nothing, nothing)
    np.testing.assert_allclose(got, 0.0, atol=1e-4)
    assert evidence.order.shape[1] == N_SHARPNESS_NODES


def test_curves_are_tabulated_by_programs_of_one_shape_and_read_without_programs():
    """Whatever the number of races: more of them compile nothing."""
    for n_races in (4, 8):
        ensemble, results = planted(1.0, n_races=n_races)
        with compiled_programs() as compiled:
            evidence = latest_evidence(ensemble, results)
            surfaces = tabulate_surfaces(evidence.order)
    assert compiled == []
    with compiled_programs() as compiled:
        likelihood = summarise(evidence, surfaces, len(SEASONS) + 1)
        drawn = prior_draws(len(SEASONS) + 1, 8)
        one_chain = (drawn[name][None] for name in ("log_slope", "noise_sigma", "intercept"))
        by_race = log_likelihood(evidence, surfaces, *one_chain)
    assert compiled == []
    assert by_race.shape == (1, 8, 8)
    assert np.isfinite(likelihood.order).all()


@pytest.mark.slow
def test_pooling_and_comparison():
    """Four archetypes, one of them over-confident: pooled and own fits beat raw, and weights add up."""
    fits, tables = {}, []
    for archetype in ARCHETYPES:
        slope = 0.6 if archetype == Archetype.SHORT_TRACK else 1.0
        ensemble, results = planted(slope, n_races=24, archetype=archetype, seed=8)
        fits[archetype] = fit_races(ensemble, results, archetype, seed=1)
        tables.append(tabulate_races(ensemble, results, seed=1))
    curves = join_curves(tables)
    pooled = fit_pooled(curves, SEASONS, seed=1)
    assert int(pooled["sample_stats"]["diverging"].sum()) == 0
    slope = np.exp(pooled["posterior"]["log_slope"].mean(("chain", "draw", "season")))
    assert str(slope["archetype"].values[int(np.argmin(slope.values))]) == "short_track"
    comparison = compare_calibrations(curves, fits, pooled)
    assert comparison["weight"].sum() == pytest.approx(1.0, abs=1e-6)
    elpd = dict(comparison.select("model", "elpd").iter_rows())
    assert elpd["per archetype"] > elpd["raw"]
    assert comparison["n_races"].to_list() == [96] * 3


@pytest.mark.slow
def test_one_race_compares_nothing():
    """A first season has fits without races for most archetypes; leave-one-out needs two races."""
    fits, tables = {}, []
    for archetype in ARCHETYPES:
        n_races = 1 if archetype == Archetype.SHORT_TRACK else 0
        ensemble, results = planted(1.0, n_races=4, archetype=archetype, seed=8)
        few = ensemble.isel(race=slice(0, n_races))
        fits[archetype] = fit_races(few, results, archetype, seed=1, **QUICK)
        tables.append(tabulate_races(few, results, seed=1))
    curves = join_curves(tables)
    comparison = compare_calibrations(curves, fits, fit_pooled(curves, SEASONS, seed=1, **QUICK))
    assert comparison.is_empty()
    ModelComparison.validate(comparison)

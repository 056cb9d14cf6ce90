"""The latent calibration map: model, fits by fold, recalibrated forecasts, pooling."""

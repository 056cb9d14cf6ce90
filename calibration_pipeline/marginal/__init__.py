"""The marginal calibration map of finish probabilities: model, prediction, argument checks."""

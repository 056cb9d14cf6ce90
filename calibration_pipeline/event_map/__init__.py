"""The event map: recalibration of the probabilities of a win, or of a finish in the top n, by market."""

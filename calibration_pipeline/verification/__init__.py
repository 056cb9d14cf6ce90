"""Backtest, scores, intervals, reliability, joint events, verdicts."""

"""Backtest, scores, intervals, reliability, joint events; verdicts in a package of their own."""

"""Comparison of forecasters: scores by market, the leaderboard, and the blend of their forecasts."""

"""How good forecasts were: scores, reliability, joint events, their uncertainty, and verdicts."""

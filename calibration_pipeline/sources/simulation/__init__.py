"""The invented world behind the simulated source: laws, cast, careers, races, seasons."""

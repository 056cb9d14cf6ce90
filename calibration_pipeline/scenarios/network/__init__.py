"""The causal network: its NumPyro model, edges, stints and graph."""

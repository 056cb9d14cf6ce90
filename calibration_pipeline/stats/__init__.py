"""Statistics without a domain: ranking, quadrature, Chebyshev tables, Plackett-Luce, Sinkhorn, intervals."""

"""Files and addresses: atomic writing, NetCDF, SQL over the store, escaping, compile cache."""

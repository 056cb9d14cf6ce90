"""Files and addresses: atomic writing, NetCDF, stored values, SQL over the store, escaping, compile cache."""

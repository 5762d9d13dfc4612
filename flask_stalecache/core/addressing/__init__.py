"""How entries are found, purged and requested again: keys, names, recipes and URLs."""

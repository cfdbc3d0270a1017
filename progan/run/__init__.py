"""A training run: what it has learned, its folder, its processes, what it writes down."""

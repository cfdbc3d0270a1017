"""A package, so that worker processes find it before other packages of this name."""

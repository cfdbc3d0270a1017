"""Files of the official code."""

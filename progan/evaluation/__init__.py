"""Whose images are measured, against which reals, and what was found (paper section 5)."""

"""Measuring generators (paper section 5)."""

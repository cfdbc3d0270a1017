"""Encoded pictures: found, decoded, looked at."""

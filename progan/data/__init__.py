"""Data sets: the store that training reads, and the sources that fill it."""

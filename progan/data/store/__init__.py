"""The data set on disk: every image at every resolution, memory-mapped."""

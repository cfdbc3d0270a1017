"""What a run has learned, in forms that need neither progan nor PyTorch."""

"""Experiments of many runs: the ablation, mode recovery, CIFAR-10 (paper section 6, appendices D and E)."""

"""Measuring generators (paper section 5): progan.metrics.swd, ms_ssim, fid, kid, nearest, memorisation."""

__all__ = ["fid", "kid", "memorisation", "ms_ssim", "nearest", "swd"]


def __getattr__(name: str) -> object:
    """Import PyTorch only when a metric is asked for."""
    home = {
        "swd": "sliced_wasserstein",
        "ms_ssim": "structural_similarity",
        "fid": "features",
        "kid": "features",
        "nearest": "neighbours",
        "memorisation": "neighbours",
    }
    if name not in home:
        raise AttributeError(f"module 'progan.metrics' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"progan.metrics.{home[name]}"), name)

"""Measuring generators (paper section 5): progan.metrics.swd, ms_ssim, fid, kid, nearest, memorisation."""

from progan.lazy import lazy_names

__all__ = ["fid", "kid", "memorisation", "ms_ssim", "nearest", "swd"]

__getattr__ = lazy_names(
    __name__,
    {
        "swd": "sliced_wasserstein",
        "ms_ssim": "structural_similarity",
        "fid": "features",
        "kid": "features",
        "nearest": "neighbours",
        "memorisation": "neighbours",
    },
)

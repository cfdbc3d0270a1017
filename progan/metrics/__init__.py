"""Measuring generators (paper section 5): progan.metrics.swd, ms_ssim, fid, kid, nearest, memorisation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

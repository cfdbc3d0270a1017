"""Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., ICLR 2018)."""

import lazy_loader

__version__ = "0.1.0"

# The names of __init__.pyi, each imported when it is first asked for: so `progan --help` is quick and worker processes
# start without PyTorch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

from .features import fid as fid
from .features import kid as kid
from .neighbours import memorisation as memorisation
from .neighbours import nearest as nearest
from .sliced_wasserstein import swd as swd
from .structural_similarity import ms_ssim as ms_ssim

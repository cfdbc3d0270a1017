from .config import DiscriminatorConfig as DiscriminatorConfig
from .config import GeneratorConfig as GeneratorConfig
from .config import LossConfig as LossConfig
from .config import ScheduleConfig as ScheduleConfig
from .config import TrainConfig as TrainConfig
from .data.pyramid import ImagePyramid as ImagePyramid
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import RunError as RunError
from .errors import UserError as UserError
from .generate import load_generator as load_generator
from .generate import sample as sample
from .generate import seed_latents as seed_latents
from .networks import Discriminator as Discriminator
from .networks import Generator as Generator
from .presets import PRESETS as PRESETS
from .schedule import Phase as Phase
from .schedule import Schedule as Schedule
from .state import TrainState as TrainState
from .step import train_step as train_step
from .training import fit_to_data as fit_to_data
from .training import train as train

__version__: str

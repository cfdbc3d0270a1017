from .config import DiscriminatorConfig as DiscriminatorConfig
from .config import GeneratorConfig as GeneratorConfig
from .config import LossConfig as LossConfig
from .config import ScheduleConfig as ScheduleConfig
from .config import TrainConfig as TrainConfig
from .data.store.pyramid import ImagePyramid as ImagePyramid
from .networks import Discriminator as Discriminator
from .networks import Generator as Generator
from .presets import PRESETS as PRESETS
from .run.state import TrainState as TrainState
from .sampling.images import load_generator as load_generator
from .sampling.images import sample as sample
from .sampling.images import seed_latents as seed_latents
from .schedule import Phase as Phase
from .schedule import Schedule as Schedule
from .step import train_step as train_step
from .support.errors import ConfigError as ConfigError
from .support.errors import DataError as DataError
from .support.errors import RunError as RunError
from .support.errors import UserError as UserError
from .training import fit_to_data as fit_to_data
from .training import train as train

__version__: str

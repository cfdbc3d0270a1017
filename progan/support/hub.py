"""The Hugging Face hub as a place of weights: what hf://OWNER/NAME stands for, and which file that is here."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progan.support.errors import ConfigError, RunError, UserError, printable
from progan.support.files import disk_reason
from progan.support.run_files import RunFolder

WEIGHTS = "generator.safetensors"
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")
SECONDS = 10.0  # to wait for the hub's answer


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, at a revision: a branch, a tag or a commit; None is its main branch."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """OWNER/NAME or OWNER/NAME@REVISION, with hf:// before it or not; raises ConfigError for anything else."""
        match = re.fullmatch(r"(?:hf:/{1,2})?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text, re.ASCII)
        if match is None:
            raise _malformed(text)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"hf://{self.name}" + ("" if self.revision is None else f"@{self.revision}")


def weights_file(source: str | os.PathLike[str]) -> Path:
    """The weights of a generator: a weights file itself, the newest of a run folder, or those of hf://OWNER/NAME.

    What comes from the hub is kept in the hub's own cache, which serves without a network too. Raises RunError when
    there are none, and UserError when the hub cannot be asked.
    """
    text = os.fspath(source)
    if text.startswith("hf:/"):  # all that pathlib leaves of hf://
        return _fetch(Repository.parse(text))
    path = Path(text)
    return RunFolder(path).newest_generator() if path.is_dir() else path


def _fetch(where: Repository) -> Path:
    hub = hub_package(str(where))
    try:
        with hub_errors(str(where)):
            about = hub.HfApi().model_info(where.name, revision=where.revision, timeout=SECONDS)
    except Unreachable:
        cached = hub.try_to_load_from_cache(where.name, WEIGHTS, revision=where.revision)
        if not isinstance(cached, str):
            raise
        return Path(cached)
    _check_files(where, [file.rfilename for file in about.siblings or []])
    with hub_errors(str(where)):
        return Path(hub.HfApi().hf_hub_download(where.name, WEIGHTS, revision=where.revision))


def _check_files(where: Repository, names: list[str]) -> None:
    if WEIGHTS in names:
        return
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    if pickles:
        raise RunError(
            f"{where}: holds {printable(pickles[0])}, a pickle, which can run anything when it is read, in place of"
            f" {WEIGHTS};"
            " give a repository that progan push wrote"
        )
    raise RunError(f"{where}: holds no progan model, which is a {WEIGHTS}; give a repository that progan push wrote")


class Unreachable(UserError):
    """The hub gives no answer."""


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """What goes wrong between here and the hub, as one sentence that begins with `where`; their words are left out."""
    hub_package(where)
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise _malformed(where) from None
    except errors.RevisionNotFoundError:
        raise RunError(f"{where}: has no such revision; check what follows the @") from None
    except errors.RepositoryNotFoundError:
        raise RunError(f"{where}: is not on the hub, or hidden; check the name, or run `hf auth login`") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise RunError(
                f"{where}: the hub refuses this ({code}); run `hf auth login` with a token that may"
            ) from None
        raise UserError(f"{where}: the hub answers with an error ({code}); try again later") from None
    except errors.OfflineModeIsEnabled:
        raise Unreachable(f"{where}: HF_HUB_OFFLINE is set and the cache has it not; unset it to ask the hub") from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError):
        raise Unreachable(f"{where}: the hub cannot be reached; check the network, or HF_ENDPOINT if set") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be kept in the cache ({disk_reason(error)}); see HF_HOME") from None
    except Exception:  # an answer of another server, an address or a token that is none: their package raises anything
        raise UserError(f"{where}: the hub cannot be asked; check HF_ENDPOINT and HF_TOKEN if they are set") from None


def hub_package(where: str) -> Any:
    """The package huggingface_hub; raises UserError with the command to run when it is missing."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f'{where}: needs the package huggingface_hub; run: pip install "progan[hub]"') from None
    return huggingface_hub


def _malformed(text: str) -> ConfigError:
    return ConfigError(f"{printable(text)}: is no repository of the hub; write OWNER/NAME or OWNER/NAME@REVISION")

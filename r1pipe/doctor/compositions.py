"""The profiles of `conf/`: which there are, what one composes into, and which one `params.yaml` is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r1pipe.errors import MissingError, ParamsError
from r1pipe.files import explain
from r1pipe.params import Params


def options(home: Path, group: str) -> list[str]:
    """What a group of `conf/` offers, such as the scales."""
    return sorted(path.stem for path in (home / "conf" / group).glob("*.yaml"))


def compose(home: Path, overrides: Sequence[str]) -> Any:
    """The values of `conf/config.yaml` with overrides as Hydra writes them.

    Raises:
        ParamsError: if an override does not parse, or names what is not there.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    try:
        with initialize_config_dir(str((home / "conf").resolve()), version_base=None):
            return OmegaConf.to_container(hydra_compose("config", list(overrides)), resolve=True)
    except HydraException as error:
        found = str(error).strip().splitlines()[0].rstrip(".")
        raise ParamsError(f"Expected overrides of conf/ in {' '.join(overrides)}, found: {found}.") from None


def load_profile(home: Path, scale: str, overrides: Sequence[str] = ()) -> Params:
    """The parameters of a scale with overrides, as `dvc exp run -S scale=… -S …` would have them.

    Raises:
        MissingError: if there is no `conf/` in the folder `home`.
        ParamsError: if there is no such scale, or the overrides or the composed values are not valid.
    """
    scales = options(home, "scale")
    if not scales:
        raise MissingError(
            f"Expected the profiles in {home / 'conf/scale'}, found none; run from the repository's root."
        )
    if scale not in scales:
        raise ParamsError(f"Expected a scale of conf/scale ({', '.join(scales)}), found {scale!r}.")
    values = compose(home, [f"scale={scale}", *overrides])
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"Expected valid parameters of the profile {scale}: {explain(error)}.") from None


def composition(home: Path) -> str:
    """Which composition of `conf/` the parameters are, as `scale=tiny, data=procedural`, or that they are edited."""
    if not (home / "conf" / "config.yaml").is_file():
        return "found, but no conf/ to compare it with"
    found = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    for scale in options(home, "scale"):
        for data in options(home, "data"):
            if compose(home, [f"scale={scale}", f"data={data}"]) == found:
                return f"scale={scale}, data={data}"
    return "edited: none of conf/'s compositions"

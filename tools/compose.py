"""Compose `params.yaml` from `conf/`, as `dvc exp run -S scale=...` does: `make params`."""

import sys
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONF = Path("conf")


def composed(overrides: list[str]) -> dict[str, object]:
    """The parameters of `conf/config.yaml` with these overrides, e.g. `scale=paper`."""
    with initialize_config_dir(str(CONF.absolute()), version_base=None):
        values = OmegaConf.to_container(compose("config", overrides), resolve=True)
    if not isinstance(values, dict):
        raise TypeError(f"Expected a mapping in {CONF / 'config.yaml'}, found {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def main() -> None:
    """Write `params.yaml`."""
    Path("params.yaml").write_text(yaml.safe_dump(composed(sys.argv[1:]), sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Published checkpoints under the backbone's own names."""

from collections.abc import Mapping

from torch import Tensor


def authors_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors of a Pointcept checkpoint, for `load_state_dict` to take strictly.

    Names begin with `module.` where several GPUs trained, and with `backbone.` where a task's head stands beside the
    backbone; then everything else is the head's and is left out, as `seg_head.` is anywhere.
    """
    bare = {name.removeprefix("module."): values for name, values in state.items()}
    inner = {name.removeprefix("backbone."): values for name, values in bare.items() if name.startswith("backbone.")}
    return inner or {name: values for name, values in bare.items() if not name.startswith("seg_head.")}

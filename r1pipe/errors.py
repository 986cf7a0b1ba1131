"""What can go wrong, as types: each message says what was expected, what was found, and where."""


class R1Error(Exception):
    """Anything the user can act on; the command line prints its sentence and exits with status 1."""


class DataError(R1Error, ValueError):
    """A file or a value does not hold what its format promises."""


class ParamsError(R1Error, ValueError):
    """`params.yaml` has an unknown key, a missing one, or a value out of range."""


class MissingError(R1Error, FileNotFoundError):
    """A file, a key, a licence or a package that this work needs is not there."""


class ModelError(R1Error, ValueError):
    """Weights, a configuration and an input do not belong together."""


class GateError(R1Error, RuntimeError):
    """A check that guards the pipeline did not hold: a leak, a dead reward, a failed expectation."""

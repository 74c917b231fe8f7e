"""Every error a user can cause, in one tree.

VisionloopError
 ├─ ParamsError          conf/params.yaml, conf/expectations or an override is wrong
 ├─ DataError            the images, the manifest or the splits are wrong
 │   └─ ValidationFailed an expectation on the data set does not hold
 ├─ TrainingError        training cannot go on (NaN loss, no usable checkpoint)
 ├─ CompressionError     no candidate can be built or none meets the budget
 ├─ BundleError          a release bundle is missing, altered, of another schema or not exported
 ├─ ServiceError         MLflow, Prefect, a database or a package index cannot be reached
 ├─ RuntimeMissing       what is to run a model is not installed
 ├─ PipelineError        a DVC stage failed
 ├─ RegistryError        a version or alias is missing, or a promotion is refused
 └─ UploadError          an image sent to the server cannot be accepted

A message names the thing, the value and the way out. The command line and the
steps print it without a traceback and exit with `exit_code`.
"""


class VisionloopError(Exception):
    """Base of every error a user can cause and mend."""

    exit_code = 2


class ParamsError(VisionloopError):
    """A parameter is unknown, of the wrong type or out of range."""


class DataError(VisionloopError):
    """The images, the manifest or the splits cannot be used."""


class ValidationFailed(DataError):
    """An expectation on the data set does not hold."""

    exit_code = 3


class TrainingError(VisionloopError):
    """Training cannot go on."""


class CompressionError(VisionloopError):
    """No candidate can be built, or none meets the budget."""


class BundleError(VisionloopError):
    """A release bundle is missing, altered or of another schema."""


class ServiceError(VisionloopError):
    """A service (MLflow, Prefect, a database, a package index) cannot be reached."""


class RuntimeMissing(VisionloopError):
    """The runtime that is to run a model is not installed."""


class PipelineError(VisionloopError):
    """A DVC stage failed; `exit_code` is the stage's where that means something."""

    def __init__(self, message: str, exit_code: int = VisionloopError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RegistryError(VisionloopError):
    """A model version or alias is missing, or a promotion is refused."""


class UploadError(VisionloopError):
    """An image sent to the server cannot be accepted."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status

"""What stops networks at work and is no mistake in the code, as sentences with a cure."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from ssodkit.errors import DataError, TrainingError

MEMORY_IS_FULL = ("DefaultCPUAllocator", "MemoryError in DataLoader worker", "Storage size calculation overflowed")
"""How torch says that the host's memory does not suffice, by itself or for a loader process of numpy's."""


@contextmanager
def explained(way_on: Callable[[], str] = str) -> Iterator[None]:
    """Within it, what the disk, the memory or a loader process refuses becomes a TrainingError.

    These and every DataError say what `way_on` gives then, such as "go on with ...".
    """

    def cure() -> str:
        return f" When that is mended, {way_on()}." if way_on() else ""

    try:
        yield
    except DataError as error:
        raise DataError(f"{error}{cure()}") from error
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise _too_many_files(cure()) from error
        file = error.filename or "a file"
        raise TrainingError(f"{file} cannot be read or written: {error.strerror or error}.{cure()}") from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the memory of the GPU is full. Fewer images at once need less: set engine.images_per_device for the "
            "training, evaluation.images for an evaluation; engine.precision bf16 needs less, too."
        ) from error
    except MemoryError as error:
        raise _memory_is_full(cure()) from error
    except torch.distributed.DistError as error:
        raise _left_alone() from error
    except RuntimeError as error:
        if "third_party/gloo" in str(error):
            raise _left_alone() from error
        if "Too many open files" in str(error):
            raise _too_many_files(cure()) from error
        if any(sign in str(error) for sign in MEMORY_IS_FULL):
            raise _memory_is_full(cure()) from error
        if "DataLoader worker (pid" not in str(error):  # torch says it so, wherever the process is just then
            raise
        raise TrainingError(
            "a loader process was killed. Mostly the machine's memory is full, or what a container may share of it "
            "(docker's --shm-size), or more files are open than `ulimit -n` allows. Give it more, or set "
            f"engine.workers lower in the run's recipe.{cure()}"
        ) from error


def _memory_is_full(cure: str) -> TrainingError:
    return TrainingError(
        "this machine has not enough memory. Smaller or fewer images at once need less: set the sizes in views "
        "(resize, pad_to), engine.images_per_device for the training, evaluation.images for an evaluation, or "
        f"engine.workers lower in the run's recipe.{cure}"
    )


def _too_many_files(cure: str) -> TrainingError:
    return TrainingError(
        "this process or a loader process has as many files open as it may. Raise the limit (`ulimit -n 4096`), or set "
        f"engine.workers lower in the run's recipe.{cure}"
    )


def _left_alone() -> TrainingError:
    return TrainingError(
        "another process of this run has ended, and this one cannot go on alone; see what that one says."
    )

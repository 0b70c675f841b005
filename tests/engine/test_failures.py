import errno
import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssodkit.engine.failures import explained
from ssodkit.errors import DataError, TrainingError


class KillsItsWorker(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_explained__a_killed_loader_process_is_a_sentence():
    with (
        pytest.raises(TrainingError, match=r"loader process was killed.*engine\.workers.*mended, try again\."),
        explained(lambda: "try again"),
    ):
        next(iter(DataLoader(KillsItsWorker(), num_workers=1)))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible. ..."),
    ],
)
def test_explained__too_many_open_files_say_what_raises_the_limit(error):
    said = r"`ulimit -n 4096`.*engine\.workers.*mended, try again\.$"
    with pytest.raises(TrainingError, match=said), explained(lambda: "try again"):
        raise error


def no_memory_of_torch():
    torch.empty(10**15)


def no_memory_of_numpy():
    np.empty(10**15)


def no_memory_of_a_loader():
    next(iter(DataLoader(NeedsTooMuch(), num_workers=1)))


class NeedsTooMuch(KillsItsWorker):
    def __getitem__(self, index):
        no_memory_of_numpy()


@pytest.mark.parametrize("action", [no_memory_of_torch, no_memory_of_numpy, no_memory_of_a_loader])
def test_explained__a_full_host_says_which_fields_need_less(action):
    with pytest.raises(TrainingError, match=r"memory.*pad_to.*mended, try again\."), explained(lambda: "try again"):
        action()


def test_explained__a_mistake_of_ours_in_a_loader_process_stays_what_it_is():
    class Broken(KillsItsWorker):
        def __getitem__(self, index):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match=r"shapes differ$"), explained(lambda: "try again"):
        next(iter(DataLoader(Broken(), num_workers=1)))


def test_explained__a_full_gpu_says_which_fields_need_less():
    with pytest.raises(TrainingError, match=r"engine\.images_per_device"), explained(lambda: "try again"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_explained__what_the_system_refuses_is_named(tmp_path):
    with (
        pytest.raises(
            TrainingError, match=r"nowhere/file cannot be read or written: No such file or directory.*mended, try again"
        ),
        explained(lambda: "try again"),
    ):
        (tmp_path / "nowhere" / "file").write_text("")
    with pytest.raises(TrainingError, match="No space left on device"), explained(), open("/dev/full", "w") as file:
        file.write("a")


def test_explained__bad_data_says_how_to_go_on():
    with pytest.raises(DataError) as caught, explained(lambda: "try again"):
        raise DataError("the image a.png cannot be read.")
    assert str(caught.value) == "the image a.png cannot be read. When that is mended, try again."
    with pytest.raises(DataError, match=r"read\.$"), explained():
        raise DataError("the image a.png cannot be read.")


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer"),
    ],
)
def test_explained__a_process_that_is_left_alone_points_at_the_other(error):
    with pytest.raises(TrainingError, match="another process of this run has ended"), explained():
        raise error


def test_explained__our_own_mistakes_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), explained(lambda: "try again"):
        raise RuntimeError("shapes differ")

import errno
import os
import signal

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
        RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost ..."),
    ],
)
def test_explained__too_many_open_files_say_what_raises_the_limit(error):
    said = r"`ulimit -n 4096`.*engine\.workers.*mended, try again\.$"
    with pytest.raises(TrainingError, match=said), explained(lambda: "try again"):
        raise error


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

"""What several folders test with: tiny detectors and batches (see tiny.py), and what an operation costs."""

import gc
import os
import resource
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager

import attack
import pytest
import tiny
import torch
from command import Ended
from hypothesis import HealthCheck, settings
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssodkit import cli
from ssodkit.plugins import BuildContext, load_plugins

# Tests share the cores process by process; threads of their own would wait for one another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--attacks",
        type=int,
        default=1,
        metavar="N",
        help="property tests draw N times as many examples, and other ones each time",
    )


def pytest_configure(config):
    settings.register_profile(
        "attacks", deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("attacks")
    attack.times = config.getoption("--attacks")


def pytest_collection_finish():
    # Hundreds of thousands of objects, which stay for good: a collection of garbage need not walk over them each time.
    gc.collect()
    gc.freeze()


class _Operators(TorchDispatchMode):
    """Counts operators whose answer, or its size, the host waits for on a GPU."""

    waiting = frozenset({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output})
    untagged = frozenset({"torchvision::nms", "aten::_linalg_check_errors", "ssodkit::least_cost"})

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put", "aten::index_put_") else None
        masks = [index for index in indices or () if index is not None and index.dtype in (torch.bool, torch.uint8)]
        if masks or name in self.untagged or (indices is None and self.waiting & set(func.tags)):
            self.asked[name] += 1
        return func(*args, **(kwargs or {}))


class _Readings(TorchFunctionMode):
    """Counts what is read from or made of whole lists, which reaches no operator on the CPU.

    No tensor says within it that it lies there: what is asked only where asking costs nothing is not asked.
    """

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.is_cpu.__get__:
            return False
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.tensor):
            self.asked[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def host_questions():
    """A context that yields a Counter of operations at which the host would wait for a GPU, filled inside it."""

    @contextmanager
    def count():
        asked = Counter()
        with ExitStack() as stack:
            stack.enter_context(_Operators(asked))
            stack.enter_context(_Readings(asked))
            yield asked

    return count


class _LargestTensor(TorchDispatchMode):
    """Records the most bytes that any operation's answer has."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)]
        self.bytes = max(self.bytes, *sizes, 0)
        return answer


@pytest.fixture
def largest_tensor():
    """A context that yields an object whose `bytes` are those of the largest tensor made inside it."""
    return _LargestTensor


@pytest.fixture
def tiny_context():
    """num_classes, fields of a detector (replacing those of the tiny one of its type) -> a build context."""
    load_plugins()
    from ssodkit.detectors.base import DetectorConfig
    from ssodkit.plugins import members

    def make(num_classes: int = 3, type: str = "faster_rcnn", **fields) -> BuildContext:
        detector = members(DetectorConfig.slot)[type].model_validate({**tiny.TINY_DETECTORS[type], **fields})
        torch.manual_seed(0)
        return BuildContext(num_classes=num_classes, detector=detector, load_weights=False)

    return make


@pytest.fixture
def make_view():
    """name, image ids -> a view of noise."""
    return tiny.make_view


@pytest.fixture
def make_targets():
    """Per image a list of (left, top, right, bottom, label) -> padded targets of weight 1."""
    return tiny.make_targets


@pytest.fixture
def semi_batch():
    """Two labeled images, of 2 and 1 boxes, and two unlabeled ones, mirrored in their strong view."""
    return tiny.make_semi_batch()


@pytest.fixture(autouse=True, scope="session")
def settings_of_nobody(tmp_path_factory):
    """Which plug-ins are trusted is not read from the home of whoever runs the tests, nor written there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def file_limit():
    """Bytes -> a context in which longer files cannot be written, as if the disk were full."""

    @contextmanager
    def limit(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """Runs the console script in an empty folder, in this process: its arguments -> how it ended."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ssodkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run

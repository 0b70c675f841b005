"""Export: the detector of a run as one file, which has found in sample pictures what the run finds in them.

ONNX and TorchScript hold the whole detector (see `engine.portable`), written down by torch's tracer. What a tracer
takes for a constant shows in pictures of another size, so none is written before it has agreed on several.
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssodkit.data.annotations import ImageSet
from ssodkit.data.decode import decode_image
from ssodkit.data.files import written_whole
from ssodkit.data.sets import open_test
from ssodkit.detectors.portable.parts import Suppress, suppress_by_onnx, suppress_by_torch
from ssodkit.engine.agreement import Agreement
from ssodkit.engine.bars import showing
from ssodkit.engine.checkpoint import read_run, read_step
from ssodkit.engine.detector_file import dump_detector, read_detector
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import refuse_existing
from ssodkit.engine.found import Found
from ssodkit.engine.portable import Portable
from ssodkit.engine.trained import TrainedDetector, open_trained
from ssodkit.errors import DataError, TrainingError
from ssodkit.ops.random import integers, make_key

Format = Literal["onnx", "torchscript", "safetensors"]
Pixels = NDArray[np.uint8]
Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""Boxes, scores, labels and counts, as `Portable` has them."""
Runner = Callable[[Pixels], Outputs]
"""What a file finds in a batch of pictures (batch, 3, height, width)."""

OPSET = 17
"""Of ONNX; version 1.12 of 2022 has it, and every onnxruntime from 1.13 on reads it."""
SAMPLES = 8
"""Test images that are compared, at even distances."""
ABOUT = "ssodkit.json"
"""In a TorchScript file: what an ONNX file has in its metadata."""
CURE = "Where a network depends on the size of its pictures, an ONNX file can have a fixed one: --size and --batch."
INPUT, OUTPUTS = "images", ("boxes", "scores", "labels", "counts")


@dataclass(frozen=True)
class Shape:
    """What a file takes; None: any."""

    batch: int | None = None
    size: tuple[int, int] | None = None
    """Height and width of the pictures."""

    def __str__(self) -> str:
        size = "any size" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels (height x width)"
        return f"{'any number of' if self.batch is None else self.batch} pictures of {size}"


def export(
    run: Path | str,
    out: Path | str,
    format: Format,
    network: str | None = None,
    score: float | None = None,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    trust_plugins: bool = False,
) -> Agreement:
    """Write the detector of a run into the file `out`, and say how well it agrees with the run's own detections.

    `network` is the recipe's result if not given, `score` its first test threshold, below which the file finds nothing.
    `batch` and `size` (height, width) fix what an ONNX file takes. Raises TrainingError, and writes nothing, where the
    file does not find what the run finds, or the run has what no such file can hold.
    """
    out, shape = Path(out), Shape(batch, size)
    refuse_existing(out)
    if format != "onnx" and shape != Shape():
        raise TrainingError(f"a {format} file takes pictures of any number and size: leave out --batch and --size.")
    recipe, checkpoint = read_run(Path(run), trust_plugins)
    # As a file computes: in fp32, uncompiled, on the host.
    engine = recipe.engine.model_copy(update={"precision": "fp32", "compile": False, "channels_last": False})
    exact = recipe.model_copy(update={"engine": engine})
    detector = open_trained(exact, checkpoint, network, torch.device("cpu"), score)
    with explained(), torch.no_grad():
        samples = list(_samples(detector, shape))
        if format == "safetensors":
            content = dump_detector(recipe, detector.name, detector.categories, detector.network, read_step(checkpoint))
            agreement = _compare_saved(content, detector, samples)
        else:
            about = _describe(detector, read_step(checkpoint))
            write = {"onnx": _to_onnx, "torchscript": _to_torchscript}[format]
            content, runner = write(detector, shape, about, samples)
            agreement = compare(runner, detector, samples, shape)
        if not agreement.is_whole:
            raise TrainingError(f"{out} is not written: it finds other things than the run ({agreement}). {CURE}")
        with written_whole(out) as stream:
            stream.write(content)
    print(f"{format:<12}{out}  ({len(content) / 2**20:.1f} MB, the {detector.name}, {shape})")
    print(f"agreement   {agreement}")
    if (precision := recipe.engine.precision) != "fp32":
        how = "bf16 where that is fast" if precision == "auto" else precision
        print(f"note        the run computes in {how}, the file and this comparison in fp32")
    if not agreement.detections:
        print(f"note        nothing scores above {detector.score:g} in them, so this says little; see --score")
    return agreement


def _to_torchscript(
    detector: TrainedDetector, shape: Shape, about: Mapping[str, str], samples: Sequence[Pixels]
) -> tuple[bytes, Runner]:
    module, example = _portable(detector, suppress_by_torch), _stacked(samples[:1], shape)
    stream = io.BytesIO()
    with _tracing():
        traced = torch.jit.trace(module, (torch.from_numpy(example),), check_trace=False)
        torch.jit.save(traced, stream, _extra_files={ABOUT: json.dumps(about)})
        read = torch.jit.load(io.BytesIO(stream.getvalue()))
    return stream.getvalue(), lambda pictures: _as_arrays(read(torch.from_numpy(pictures)))


def _to_onnx(
    detector: TrainedDetector, shape: Shape, about: Mapping[str, str], samples: Sequence[Pixels]
) -> tuple[bytes, Runner]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise TrainingError(
            f"an ONNX file needs the package {error.name}, which is not installed: pip install 'ssodkit[export]'."
        ) from error
    free = {0: "batch"} if shape.batch is None else {}
    sides = {2: "height", 3: "width"} if shape.size is None else {}
    module, example = _portable(detector, suppress_by_onnx), torch.from_numpy(_stacked(samples[:1], shape))
    with TemporaryDirectory() as folder, _tracing():
        path = Path(folder) / "detector.onnx"
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=False,  # the newer exporter asks for sizes that Python can compare, which a resize inside has not
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={INPUT: free | sides, **dict.fromkeys(OUTPUTS, free)},
        )
        model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(about))
    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda pictures: tuple(session.run(OUTPUTS, {INPUT: pictures}))


def _portable(detector: TrainedDetector, suppress: Suppress) -> Portable:
    return Portable(detector.network, detector.recipe.views, suppress, detector.score).eval()


@contextmanager
def _tracing() -> Iterator[None]:
    """Within it torch does not warn of each number that it takes for a constant: what is written is compared."""
    import torchvision  # noqa: F401  it must not be imported within a trace, which would write down what that asks

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(
            f"this detector has an operation that no such file can hold ({reason.rstrip('.')}). Use "
            "--format safetensors."
        ) from error


def _describe(detector: TrainedDetector, step: int) -> dict[str, str]:
    """What a file says of itself."""
    return {
        "names": json.dumps({str(label): category.name for label, category in enumerate(detector.categories)}),
        "category_ids": json.dumps({str(label): category.id for label, category in enumerate(detector.categories)}),
        "recipe": detector.recipe.name,
        "network": detector.name,
        "step": str(step),
        "score_above": f"{detector.score:g}",
        "input": f"{INPUT}: RGB, uint8, (batch, 3, height, width)",
        "output": "boxes: left, top, right, bottom in pixels of the pictures; of each the first `counts` rows",
    }


def _samples(detector: TrainedDetector, shape: Shape) -> Iterator[Pixels]:
    """Pictures (height, width, 3) of the size that the file takes: of the run's test set, and made ones."""
    images = _test_images(detector)
    places = np.unique(np.linspace(0, len(images) - 1, SAMPLES).round().astype(int)).tolist() if images else []
    pictures = [decode_image(images.path(place)) for place in places] if images else []
    # And made ones of other shapes: one full of edges, and one in which there is hardly anything to be seen.
    pictures += [_noise((230, 170), 0, 255), _noise((97, 333), 126, 130)]
    for picture in pictures:
        yield picture if shape.size is None else _resized(picture, shape.size)


def _test_images(detector: TrainedDetector) -> ImageSet | None:
    try:
        with showing("opening the test images") as on_progress:
            return open_test(detector.recipe.data, on_progress)
    except DataError as error:
        print(f"note        made pictures are compared alone, as the run's test images cannot be read: {error}")
        return None


def _noise(size: tuple[int, int], low: int, high: int) -> Pixels:
    gray = integers(torch.tensor([make_key("sample", *size)]), (*size, 3), low, high, "gray")
    return gray[0].to(torch.uint8).numpy()


def _resized(picture: Pixels, size: tuple[int, int]) -> Pixels:
    from PIL import Image

    return np.array(Image.fromarray(picture).resize(size[::-1]))


def _stacked(pictures: Sequence[Pixels], shape: Shape) -> Pixels:
    """Pictures of one size as a batch (batch, 3, height, width), the last one repeated where the batch is fixed."""
    filled = [*pictures, *[pictures[-1]] * ((shape.batch or 0) - len(pictures))]
    return np.ascontiguousarray(np.stack(filled).transpose(0, 3, 1, 2))


def compare(runner: Runner, detector: TrainedDetector, samples: Sequence[Pixels], shape: Shape) -> Agreement:
    """What the file finds in the samples, beside what the run finds in them."""
    agreement = Agreement()
    for _, group in groupby(samples, lambda picture: picture.shape):
        alike, each = list(group), shape.batch or 2
        for start in range(0, len(alike), each):
            pictures = alike[start : start + each]
            try:
                answers = zip(*runner(_stacked(pictures, shape)), strict=True)
            except Exception as error:  # onnxruntime and TorchScript have kinds of their own, for shapes that misfit
                size = " x ".join(map(str, pictures[0].shape[:2]))
                reason = str(error).strip().splitlines()[-1]
                raise TrainingError(f"the file would fail on pictures of {size} pixels ({reason}). {CURE}") from error
            for picture, (boxes, scores, labels, count) in zip(pictures, answers, strict=False):
                got = Found(boxes[:count], scores[:count], labels[:count], detector.categories, picture)
                agreement.add(detector(picture), got, detector.score, detector.at_most)
    return agreement


def _compare_saved(content: bytes, detector: TrainedDetector, samples: Sequence[Pixels]) -> Agreement:
    """The same of a safetensors file, which `load` reads."""
    agreement = Agreement()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector.safetensors"
        path.write_bytes(content)
        saved = replace(read_detector(path, trust_plugins=True), recipe=detector.recipe)
    other = replace(detector, network=saved.open(None, detector.device)[1])
    for picture in samples:
        agreement.add(detector(picture), other(picture), detector.score, detector.at_most)
    return agreement


def _as_arrays(outputs: Sequence[Tensor]) -> Outputs:
    return tuple(output.numpy() for output in outputs)  # type: ignore[return-value]

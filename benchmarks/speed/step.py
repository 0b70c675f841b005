"""Time a training step of any recipe against its floor, on this machine (CPU or GPU).

    step    the whole step: the engine's update, to changed weights of student and teacher
    floor   what no step of its kind can do without: the student's plain losses on all images that it sees, as if all
            had labels, and its plain answers about their mirrors where these must be seen; backward, optimizer; and
            the teacher's plain detection of the unlabeled images, or its plain answers where no more is asked, and
            those about mirrored regions where these are averaged

Both run in turn on the same tensors, which lie on the device. A random teacher is never sure, so it is made to answer
with --pseudo random boxes per image, scored 0.5 to 1, and every path of the step runs. Weights are random, images are
noise: neither network nor data set is needed. Medians after warm-up. With several recipes the answer is a table.
"""

import argparse
import resource
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ssodkit.data.augment.resize import ResizeConfig
from ssodkit.data.raw import RawBatch
from ssodkit.data.views import ViewConfig, ViewMaker
from ssodkit.engine.build import build_method, place
from ssodkit.engine.distributed import Processes
from ssodkit.engine.optimizer import build_optimizer, set_learning_rate
from ssodkit.engine.precision import autocast
from ssodkit.engine.update import Updater
from ssodkit.methods.base import learn_from_labels
from ssodkit.methods.imitation import Imitation
from ssodkit.methods.pseudo_label import PseudoLabel
from ssodkit.ops.random import make_key, uniform
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.predictions import Detections, Seen
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import join
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View, mirrored

NUM_CLASSES = 80
LABELED_BOXES = 8
"""Boxes per labeled image, and per unlabeled image in the floor."""


def main() -> None:
    args = read_arguments()
    device = torch.device(args.device)
    print(f"{args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.precision}")
    print(f"{args.labeled} + {args.unlabeled} images of {args.height} x {args.width}, {args.pseudo} pseudo-boxes each")
    if len(args.recipe) == 1:
        print_one(Bench(args.recipe[0], device, args), device, args)
        return
    print("\n| recipe | step | floor | step over floor |\n|---|---|---|---|")
    for name in args.recipe:
        bench = Bench(name, device, args)
        whole, floor = time_in_turn(device, args, bench.step, bench.floor)
        print(f"| `{name}` | {whole:.3f} s | {floor:.3f} s | {whole / floor:.2f} |", flush=True)


def print_one(bench: "Bench", device: torch.device, args: argparse.Namespace) -> None:
    """The times of one recipe, and where they go."""
    whole, floor = time_in_turn(device, args, bench.step, bench.floor)
    images = args.labeled + (args.unlabeled if bench.unlabeled is not None else 0)
    print(f"step {whole:.3f} s, floor {floor:.3f} s, {images / whole:.2f} images/s")
    for part, seconds in time_parts(bench, device, args.parts).items():
        print(f"    {part:<8} {seconds:.3f} s")
    print(f"data {bench.seconds_of_views:.3f} s apart from the step: all views of each image, without decoding")
    print(f"peak memory {peak_memory(device, bench.step):.2f} GiB")
    if device.type == "cuda":
        print(f"host synchronizations {count_synchronizations(bench.step)} per step")
    print(f"step over floor {whole / floor:.2f}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=["coco/soft_teacher"], help="of recipes/, or files")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of every recipe")
    parser.add_argument("--at", type=float, default=0.75, help="share of the run that is over: whether all parts act")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--labeled", type=int, default=1, help="images in a step")
    parser.add_argument("--unlabeled", type=int, default=1, help="images in a step")
    parser.add_argument("--height", type=int, default=320, help="pixels of all views")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--pseudo", type=int, default=20, help="boxes that the teacher answers per image, at most 100")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--steps", type=int, default=10, help="timed steps, and floors")
    parser.add_argument("--warmup", type=int, default=2, help="steps and floors before them")
    parser.add_argument("--parts", type=int, default=5, help="further steps, for the times of their parts")
    return parser.parse_args()


class Bench:
    """A method, a batch on its device, and the two things to time."""

    def __init__(self, name: str, device: torch.device, args: argparse.Namespace) -> None:
        recipe = self.recipe = load(name, [f"engine.precision={args.precision}", *args.set])
        self.device = device
        self.progress = Progress(int(args.at * recipe.engine.steps), recipe.engine.steps)
        self.method = place(build_method(recipe, NUM_CLASSES, load_weights=False), recipe, device).train()
        self.updater = Updater(self.method, recipe.engine, Processes(device))
        self.floor_optimizer = build_optimizer(self.method, recipe.engine.optimizer)
        set_learning_rate(self.floor_optimizer, recipe.engine.lr.at(self.progress))
        start = time.perf_counter()
        self.labeled = make_views(recipe.views.labeled, "labeled", args.labeled, args, device)
        self.unlabeled = None
        if recipe.method.uses_unlabeled(self.progress):
            self.unlabeled = make_views(recipe.views.unlabeled, "unlabeled", args.unlabeled, args, device)
        synchronize(device)
        self.seconds_of_views = time.perf_counter() - start
        self.plain: Callable[[View], object] | None = None
        if isinstance(self.method, PseudoLabel):
            self.plain = self.look = self.method.teacher.look
            self.method.teacher.look = self.sure_look  # type: ignore[method-assign]
            assert self.unlabeled is not None
            self.answer = sure_detections(self.unlabeled.views["weak"], args.pseudo, recipe.detector.test.at_most)
        elif isinstance(self.method, Imitation):
            self.plain = self.raw_answers

    def raw_answers(self, view: View) -> None:
        """What the teacher must answer before it can be imitated; in the mirror, as many regions cost the same."""
        assert isinstance(self.method, Imitation)
        teacher = self.method.teacher
        regions = teacher.answer(view).last.candidates
        if self.method.config.flip_average:
            teacher.score_regions(teacher.network.extract(mirrored(view)), regions)

    def sure_look(self, view: View, progress: Progress | None = None) -> Seen:
        """The teacher's look, whose detections are replaced; whatever else scores them says the same, and their further
        answers are logits of 0.05: of an uncertainty that is listened to."""
        seen, labels = self.look(view, progress), self.answer.labels
        scores = dict.fromkeys(seen.found.scores, self.answer.confidence)
        extra = {name: said.new_full((*labels.shape, *said.shape[2:]), -3.0) for name, said in seen.found.extra.items()}
        return replace(seen, found=replace(self.answer, scores=scores, extra=extra))

    def step(self) -> None:
        """To updated weights and teacher; the unlabeled targets are not read."""
        self.updater((SemiBatch(self.labeled, self.unlabeled),), self.progress)

    def floor(self) -> None:
        """Every image has labels; nothing is selected, scored or averaged."""
        with autocast(self.recipe.engine.precision, self.device):
            if self.plain is not None and self.unlabeled is not None:
                self.plain(self.unlabeled.views["weak"])
            batch = SemiBatch(self.all_labeled, None)
            losses, _ = learn_from_labels(self.method.networks()["student"], batch, self.progress)
            total = torch.stack(list(losses.values(losses.denominators()).values())).sum()
            if any(part.type == "flip" for part in self.recipe.method.consistencies):
                total = total + self.mirrored_answers()
        self.floor_optimizer.zero_grad()
        total.backward()
        self.floor_optimizer.step()

    def mirrored_answers(self) -> Tensor:
        """A number that all answers about the mirrored images are in, for a method that must see them again.

        Where regions are asked about, these are all training proposals, in both views: in the plain one, of which
        the student otherwise answers about a sample, as many in the mirror cost the same.
        """
        student = self.method.networks()["student"]
        features = student.extract(mirrored(self.all_labeled.views["all"]))
        said = [student.predict(features, proposals="training").last]
        if "exact_regions" in self.recipe.detector.provided:
            said.append(student.score_regions(features, said[0].candidates))
        return torch.stack([one.class_logits.mean() + one.box_codes.mean() for one in said]).sum()

    @property
    def all_labeled(self) -> Stream:
        """The images that the student sees in a step, with labels for all."""
        streams = [self.labeled]
        if self.unlabeled is not None:
            streams.append(self.unlabeled.only("strong"))
        joined = [stream.joined() for stream in streams]
        view, targets = join([view for view, _ in joined]), join([targets for _, targets in joined])
        return Stream({"all": view}, {"all": targets})


def load(name: str, overrides: list[str]) -> Recipe:
    """A recipe whose selector lets all boxes through that a random teacher does not find again when it is shaken."""
    recipe = load_recipe(name, overrides)
    rule = getattr(getattr(recipe.method, "selector", None), "boxes", None)
    if getattr(rule, "below", None) is None:
        return recipe
    return load_recipe(name, [*overrides, "method.selector.boxes.below=1.0"])


def make_views(
    views: dict[str, ViewConfig], stream: str, count: int, args: argparse.Namespace, device: torch.device
) -> Stream:
    """The recipe's views of noise, with `LABELED_BOXES` boxes, but all of one size."""
    height, width = args.height, args.width
    keys = torch.tensor([make_key(stream, image) for image in range(count)])
    boxes, labels = random_boxes(keys, height, width, LABELED_BOXES)
    taught = torch.ones_like(labels, dtype=torch.bool)
    raw = RawBatch(
        pixels=(uniform(keys, (3, height, width), "pixels") * 256.0).to(torch.uint8),
        sizes=torch.tensor([[height, width]] * count),
        image_ids=torch.arange(count),
        keys=keys,
        targets=Targets(boxes, labels, valid=taught, weight=taught.float(), crowd=~taught),
    )
    size = ResizeConfig(short=min(height, width), long=max(height, width))
    return ViewMaker({name: resized(view, size) for name, view in views.items()}, 0.0, 32).make(raw.to(device))


def resized(view: ViewConfig, size: ResizeConfig) -> ViewConfig:
    """The same view with another resize."""
    transforms = tuple(size if isinstance(part, ResizeConfig) else part for part in view.transforms)
    return view.model_copy(update={"transforms": transforms})


def random_boxes(keys: Tensor, height: int, width: int, count: int) -> tuple[Tensor, Tensor]:
    """Boxes (batch, count, 4) inside an image, of 8 pixels to a third of its sides, and labels."""
    extent = torch.tensor([width, height], dtype=torch.float32)
    side = 8.0 + uniform(keys, (count, 2), "sides") * extent / 3.0
    corner = uniform(keys, (count, 2), "corners") * (extent - side)
    labels = (uniform(keys, (count,), "labels") * NUM_CLASSES).long()
    return torch.cat([corner, corner + side], dim=-1), labels


def sure_detections(view: View, count: int, length: int) -> Detections:
    """`count` random boxes scored 0.5 to 1, best first, in rows as long as a teacher's."""
    keys, device = view.keys.cpu(), view.pixels.device
    height, width = view.pixels.shape[-2:]
    boxes, labels = random_boxes(keys, height, width, length)
    valid = (torch.arange(length) < count).expand(len(keys), length)
    confidence = uniform(keys, (length,), "scores").mul(0.5).add(0.5).sort(dim=-1, descending=True).values
    return Detections(boxes, labels, valid, {"confidence": confidence}).to(device)


def time_in_turn(device: torch.device, args: argparse.Namespace, *runs: Callable[[], None]) -> tuple[float, ...]:
    """Median seconds of each; in turn, so that a drift of the machine hits all alike."""
    seconds: list[list[float]] = [[] for _ in runs]
    for index in range(args.warmup + args.steps):
        for run, times in zip(runs, seconds, strict=True):
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if index >= args.warmup:
                times.append(time.perf_counter() - start)
    return tuple(statistics.median(times) for times in seconds)


def time_parts(bench: Bench, device: torch.device, steps: int) -> dict[str, float]:
    """Median seconds of a step's parts, in further steps: on a GPU, watching a part makes the host wait for it."""
    method, module = bench.method, sys.modules[type(bench.method).__module__]
    names = {"predict_together": "student", "assign": "losses", "loss": "losses", "agree": "losses"}
    parts: list[tuple[Any, str, str]] = [
        *((module, name, part) for name, part in names.items() if hasattr(module, name)),
        (Tensor, "backward", "backward"),
        (bench.updater.optimizer, "step", "update"),
        (method, "after_update", "update"),
    ]
    if isinstance(method, Imitation):
        parts.append((method.teacher, "answer", "teacher"))
    if isinstance(method, PseudoLabel):
        scorers = (*method.scorers, method.selector, *method.candidate_scorers)
        parts += [(method.teacher, "look", "teacher"), *((scorer, "forward", "scoring") for scorer in scorers)]
    rounds: dict[str, list[float]] = defaultdict(list)
    for _ in range(steps):
        with watched(parts, device) as seconds:
            start = time.perf_counter()
            bench.step()
            synchronize(device)
            seconds["rest"] = time.perf_counter() - start - sum(seconds.values())
        for part, spent in seconds.items():
            rounds[part].append(spent)
    return {part: statistics.median(spent) for part, spent in rounds.items()}


@contextmanager
def watched(parts: list[tuple[Any, str, str]], device: torch.device) -> Iterator[dict[str, float]]:
    """Within it, the seconds spent in functions (owner, name) add up in the answer, by part."""
    seconds: dict[str, float] = defaultdict(float)
    plain = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]

    def watch(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def watching(*args: Any, **fields: Any) -> Any:
            synchronize(device)
            start = time.perf_counter()
            answer = function(*args, **fields)
            synchronize(device)
            seconds[part] += time.perf_counter() - start
            return answer

        return watching

    try:
        for (owner, name, function), (_, _, part) in zip(plain, parts, strict=True):
            setattr(owner, name, watch(function, part))
        yield seconds
    finally:
        for owner, name, function in plain:
            setattr(owner, name, function)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device, step: Callable[[], None]) -> float:
    """GiB: on a GPU of a step's tensors, networks and optimizer included; else of this process, so far."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device) / 2**30


def count_synchronizations(step: Callable[[], None]) -> int:
    """How often the host waits for the GPU in a step."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


if __name__ == "__main__":
    main()

"""Measure what data costs on this machine: memory of COCO's annotations in workers, and the time of the embedded data.

annotations   a made file with as many images and boxes as COCO's train2017 is read; then workers read all of it,
              and what each of them has for itself alone is added up
digits        2,000 + 400 scenes are drawn and written, as on a first run
batches       steps of recipes/soft_teacher.yaml, with views, made in this process and by workers
"""

import argparse
import json
import os
import resource
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssodkit.data.annotations import ImageSet
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.coco import read_coco
from ssodkit.data.loader import training_batches
from ssodkit.data.sets import open_data
from ssodkit.recipe.check import load_recipe

IMAGES, BOXES, CATEGORIES = 118_287, 860_001, 80
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8, help="that read the annotations")
    parser.add_argument("--loaders", type=int, default=2, help="workers that make batches")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSODKIT_CACHE"] = str(Path(folder) / "cache")
        measure_annotations(Path(folder), args.workers)
        measure_digits(args.steps, args.loaders)


def measure_annotations(folder: Path, workers: int) -> None:
    with ProcessPoolExecutor(1) as other:  # what writing takes shall not count
        file = other.submit(write_annotations, folder).result()
    start = time.perf_counter()
    images = read_coco(file, folder / "images")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arrays = sum(column.nbytes for column in vars(images).values() if isinstance(column, np.ndarray)) / MIB
    size = file.stat().st_size / MIB
    print(f"annotations: {len(images):,} images, {len(images.boxes):,} boxes, a file of {size:.0f} MB")
    print(f"             read in {seconds:.1f} s, peak of this process {peak:.0f} MB, arrays {arrays:.1f} MB")
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores is what is measured
    loader = DataLoader(ReadEverything(images), batch_size=None, sampler=range(workers), num_workers=workers)
    grown = sum(after - before for before, after in (item.tolist() for item in loader)) / MIB
    print(f"             {workers} workers that read all of it need {grown:.1f} MB more, together")


class ReadEverything(Dataset[torch.Tensor]):
    """Each item reads all annotations; the answer is the private memory of its process, before and after."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: int) -> torch.Tensor:
        before = private_bytes()
        for start in range(0, len(self.images), 1000):
            places = range(start, min(start + 1000, len(self.images)))
            self.images.targets(places)
            for place in places:
                self.images.name(place)
        return torch.tensor([before, private_bytes()])


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def write_annotations(folder: Path) -> Path:
    """A COCO file of the size of train2017, outlines included, with empty image files."""
    random = np.random.RandomState(0)
    owners, labels = random.randint(0, IMAGES, size=BOXES).tolist(), random.randint(0, CATEGORIES, size=BOXES).tolist()
    outlines = random.randint(0, 400, size=(1000, 44)).tolist()
    document = {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 480, "width": 640} for n in range(IMAGES)],
        "annotations": [
            {
                "id": number,
                "image_id": owner,
                "category_id": label,
                "bbox": [number % 500, number % 400, 50.25, 40.5],
                "area": 1234.5,
                "iscrowd": 0,
                "segmentation": [outlines[number % 1000]],
            }
            for number, (owner, label) in enumerate(zip(owners, labels, strict=True))
        ],
        "categories": [{"id": n, "name": str(n)} for n in range(CATEGORIES)],
    }
    (folder / "images").mkdir()
    for entry in document["images"]:
        (folder / "images" / str(entry["file_name"])).touch()
    file = folder / "annotations.json"
    with file.open("w") as stream:
        json.dump(document, stream)
    return file


def measure_digits(steps: int, loaders: int) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "soft_teacher.yaml")
    start = time.perf_counter()
    sets = open_data(recipe.data)
    print(f"digits:      {len(sets.unlabeled or ())} + {len(sets.test)} scenes in {time.perf_counter() - start:.1f} s")
    plan = derive_batch(recipe.data.batch)
    for workers in (0, loaders):
        batches = training_batches(sets, recipe.views, plan, 0, range(steps + 10), workers=workers)
        for _ in range(10):
            next(batches)
        start = time.perf_counter()
        for _ in batches:
            pass
        each = 1000 * (time.perf_counter() - start) / steps
        counts = f"{plan.batch.labeled} + {plan.batch.unlabeled}"
        print(f"batches:     {each:.1f} ms a step of {counts} images, {workers} workers")


if __name__ == "__main__":
    main()

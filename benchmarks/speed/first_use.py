"""Time the first use with many made pictures: `ssodkit init` on 100,000 of them should take less than a minute, and
`ssodkit doctor` less than three.

A fifth of the pictures has labels (COCO JSON), the others lie in a folder; all are small JPEG files, each different.
The doctor tries a step of the recipe that `init` wrote as well.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMANDS = {
    "init": "init --labeled labels.json --images labeled --unlabeled unlabeled --out many.yaml",
    "doctor": "doctor many.yaml --out seen --json --device cpu",
}
BOXES = 8
"""Of a labeled picture."""
SIZE = 120, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make_set(folder, args.pictures)
        print(f"{args.pictures:,} pictures, {size / 2**20:,.0f} MB")
        for verb, arguments in COMMANDS.items():
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "ssodkit", *arguments.split()]
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            of_a_core = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
            memory = used.ru_maxrss / 2**20  # the largest of all so far
            print(
                f"{verb}: exit code {ended.returncode}, {seconds:.0f} s, {of_a_core:.0f} s of a core, {memory:.1f} GB"
            )
        findings = json.loads((folder / "seen" / "report.json").read_text())["findings"]
    print(f"{len(findings)} findings")


def make_set(folder: Path, pictures: int) -> int:
    """Write the pictures, and the labels of a fifth of them; the bytes of all pictures."""
    random = np.random.RandomState(0)
    labeled, size = pictures // 5, 0
    for name in ("labeled", "unlabeled"):
        (folder / name).mkdir()
    for place in range(pictures):
        noise = random.randint(0, 255, (SIZE[0] // 8, SIZE[1] // 8, 3)).astype(np.uint8)
        file = folder / ("labeled" if place < labeled else "unlabeled") / f"{place:06d}.jpg"
        Image.fromarray(noise).resize(SIZE[::-1]).save(file, quality=60)
        size += os.path.getsize(file)
    (folder / "labels.json").write_text(json.dumps(make_labels(random, labeled)), encoding="utf-8")
    return size


def make_labels(random: np.random.RandomState, images: int) -> dict[str, object]:
    """As many boxes in each image, of sides from 12 to 40 pixels, of three classes."""
    sides = random.randint(12, 40, (images, BOXES, 2))
    corners = random.randint(0, 80, (images, BOXES, 2))
    boxes = np.concatenate([corners, sides], axis=2).tolist()
    return {
        "images": [{"id": i, "file_name": f"{i:06d}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "annotations": [
            {"id": BOXES * image + row, "image_id": image, "category_id": 1 + row % 3, "bbox": box}
            for image, of_image in enumerate(boxes)
            for row, box in enumerate(of_image)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)],
    }


if __name__ == "__main__":
    main()

"""A plain folder of images: what unlabeled data looks like."""

import os
from pathlib import Path

from ssodkit.data.annotations import ImageSet, make_image_set
from ssodkit.data.checks import seen_from_here
from ssodkit.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_folder(folder: Path) -> ImageSet:
    """Every image file in a folder and its subfolders, sorted by path; ids count from 1, sizes are not annotated.

    Files are known by their suffix, in any letter case; hidden files and folders are passed over. Raises DataError
    if there is no image.
    """
    if not folder.is_dir():
        raise DataError(f"{seen_from_here(folder)} is no folder. Give a folder of images.")
    names = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(parent, folder)
        names += [
            os.path.normpath(os.path.join(inside, name))
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not names:
        raise DataError(f"{folder} holds no image, nor do its subfolders. Known suffixes: {', '.join(SUFFIXES)}.")
    names.sort(key=os.fsencode)
    return make_image_set(folder, names, range(1, len(names) + 1), [(0, 0)] * len(names))

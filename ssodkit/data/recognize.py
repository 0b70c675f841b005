"""What lies at a path that a user names: labels in which form and which splits, or images alone.

Nothing is guessed: what may be several things is a sentence that names them.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ssodkit.data.checks import are_files
from ssodkit.data.coco import load_coco
from ssodkit.data.config import CocoSource, FolderSource, VocSource, YoloSource
from ssodkit.data.folder import SUFFIXES
from ssodkit.data.lookup import child_folder, find_images
from ssodkit.data.mistakes import Mistakes, listed
from ssodkit.data.reading import seen_from_here
from ssodkit.data.voc import LISTS, find_folders
from ssodkit.data.yolo import label_files
from ssodkit.data.yolo_layout import PARTS, find_parts, find_yaml, read_yaml, yaml_parts
from ssodkit.errors import DataError

Source = CocoSource | VocSource | YoloSource | FolderSource
Sources = dict[str, Source]
"""By split, `train`, `val` and `test` as far as they are there; or the one source of all images, as `all`."""

COCO_KEYS = ('"images"', '"annotations"')
LABEL_FOLDERS = ("annotations", "labels")
"""Folders of COCO files, whose images lie beside them."""
HEAD = 65_536
"""Bytes of a JSON file in which one of these keys stands, if it is COCO's."""
LOOKED_FOR = "Looked for COCO JSON, Pascal VOC XML, YOLO labels and images"


def recognize(path: Path, images: Path | None = None) -> Sources:
    """The sources of what lies at `path`: a COCO JSON file, a data.yaml, or a folder with labels or images.

    `images` is the folder of the images, where it is known. What labels say is not checked yet. Raises DataError with a
    sentence that says what was looked for and what was found, also where more than one thing could be meant.
    """
    if not path.exists():
        raise DataError(f"{seen_from_here(path)} does not exist.")
    if images is not None and not images.is_dir():
        raise DataError(f"{seen_from_here(images)} is no folder. Give the folder of the images.")
    if path.is_dir():
        return _in_folder(path, images)
    match path.suffix.lower():
        case ".json":
            return {"all": _coco(path, images)}
        case ".yaml" | ".yml":
            return _yolo(path, images)
    raise DataError(
        f"{seen_from_here(path)} is neither a COCO JSON file nor a data.yaml. Of XML files and YOLO labels, give the "
        "folder that holds them and the images."
    )


def _in_folder(folder: Path, images: Path | None) -> Sources:
    """What a folder holds: labels of one kind, or images."""
    documents = _coco_files(folder)
    kinds: dict[str, Callable[[], Sources]] = {}
    if documents:
        kinds[f"COCO JSON ({listed(documents, str, at_most=3)})"] = lambda: _coco_parts(folder, documents, images)
    if (annotation := next(_below(folder, (".xml",)), None)) is not None:
        kinds[f"Pascal VOC XML ({annotation})"] = lambda: _voc(folder, images)
    if (labels := _yolo_sign(folder, images)) is not None:
        kinds[f"YOLO labels ({labels})"] = lambda: _yolo(folder, images)
    if len(kinds) > 1:
        raise DataError(
            f"{seen_from_here(folder)} holds several kinds of labels: {', '.join(kinds)}. Give the file or the folder "
            "of one."
        )
    for found in kinds.values():
        return found()
    if images is None and next(_below(folder, SUFFIXES), None) is not None:
        return {"all": FolderSource(images=folder)}
    there = listed(sorted(os.listdir(folder)), at_most=5) or "nothing"
    raise DataError(f"{seen_from_here(folder)} holds no labels that are known. {LOOKED_FOR}; there is {there}.")


def _coco_files(folder: Path) -> list[Path]:
    """The COCO files in a folder, in its folders of labels, or in its parts."""
    names = {*LABEL_FOLDERS, *(name for names in PARTS.values() for name in names)}
    places = [place for place in _with_folders(folder) if place == folder or place.name.casefold() in names]
    return [file for place in places for file in sorted(place.glob("*.json")) if _looks_like_coco(file)]


def _looks_like_coco(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(HEAD).decode("utf-8-sig", "replace").lstrip()
    return head.startswith("{") and any(key in head for key in COCO_KEYS)


def _coco_parts(folder: Path, files: Sequence[Path], images: Path | None) -> Sources:
    if len(files) == 1:
        return {"all": _coco(files[0], images)}
    found: dict[str, list[Path]] = {}
    for file in files:
        words = {*re.split(r"[^a-z]+", file.stem.lower()), file.parent.name.lower()}
        for split, names in PARTS.items():
            if words & set(names):
                found.setdefault(split, []).append(file)
    if sorted(file for part in found.values() for file in part) != sorted(files) or len(found) < len(files):
        raise DataError(f"{seen_from_here(folder)} holds several COCO files: {listed(files)}. Give one of them.")
    return {split: _coco(found[split][0], images) for split in PARTS if split in found}


def _coco(file: Path, images: Path | None) -> CocoSource:
    """The source of a file; its images lie in the folder that is given, or in the only one near it that holds them."""
    if images is not None:
        return CocoSource(annotations=file, images=images)
    entries = load_coco(file).get("images")
    if not isinstance(entries, list):
        raise DataError(f"{seen_from_here(file)} is no COCO file: it has no list 'images'.")
    names = [
        entry["file_name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)
    ]
    near = _with_folders(file.parent)
    if file.parent.name.casefold() in LABEL_FOLDERS:
        near += _with_folders(file.parent.parent)
    found = [folder for folder in near if names and all((folder / name).is_file() for name in names)]
    # Names of labeling tools are looked for in subfolders too, so that a folder above the right one holds them as well.
    found = found or [folder for folder in near[1:] if _finds_all(folder, names)]
    found = found or [folder for folder in near[:1] if _finds_all(folder, names)]
    if len(found) != 1:
        what = f"several hold them: {listed(found)}" if found else f"no folder near it holds all {len(names)} of them"
        raise DataError(f"{seen_from_here(file)} does not say where its images are, and {what}. Give their folder too.")
    return CocoSource(annotations=file, images=found[0])


def _finds_all(folder: Path, names: Sequence[str]) -> bool:
    mistakes = Mistakes(folder)
    found, _ = find_images(folder, names, mistakes)
    return bool(names) and not mistakes and all(are_files(folder, found, mistakes))


def _voc(folder: Path, images: Path | None) -> Sources:
    """The splits that are lists in ImageSets/Main or folders of their own; else all of it.

    A folder around one of the devkit's, such as VOCdevkit, stands for that.
    """
    inside = [place.parents[len(LISTS.parts) - 1] for place in sorted(folder.glob(f"*/{LISTS}"))]
    if len(inside) > 1:
        raise DataError(f"{seen_from_here(folder)} holds several VOC folders: {listed(inside)}. Give one of them.")
    folder = inside[0] if inside else folder
    lists = {path.stem for path in (folder / LISTS).glob("*.txt")}
    named = {split: [name for name in names if name in lists] for split, names in PARTS.items()}
    named["train"] = named["train"] or ["trainval"] * ("trainval" in lists)
    found = {split: VocSource(root=folder, images=images, split=names[0]) for split, names in named.items() if names}
    if not found:
        parts = {split: child_folder(folder, names) for split, names in PARTS.items()}
        roots = {split: part for split, part in parts.items() if part and next(_below(part, (".xml",)), None)}
        found = {split: VocSource(root=root, images=images) for split, root in (roots or {"all": folder}).items()}
    for source in found.values():
        find_folders(source)
    return dict(found)


def _yolo_sign(folder: Path, images: Path | None) -> Path | None:
    """What shows that a folder holds YOLO data: a data.yaml, or the first label file of one of its images."""
    if (file := find_yaml(folder)) is not None:
        return file
    pictures = [str(path) for root in {folder, images or folder} for path in _below(root, SUFFIXES)]
    return next((Path(label) for label in label_files(pictures) if label is not None), None)


def _yolo(path: Path, images: Path | None) -> Sources:
    """The sources of a data.yaml, or of a folder; `images` must be where the labels' rule looks for them."""
    file = find_yaml(path)
    if file is not None:
        splits = yaml_parts(read_yaml(file))
        return {split: YoloSource(root=file, split=split) for split in PARTS if split in splits}
    if images is not None and not images.resolve().is_relative_to(path.resolve()):
        if not any(label_files([str(file) for file in _below(images, SUFFIXES)])):
            raise DataError(
                f"{seen_from_here(path)} holds YOLO labels, and {images} is not beside it. Give the folder that holds "
                "both: labels in `labels` belong to images in `images` beside it."
            )
        path = images.parent
    parts = find_parts(path)
    return {split: YoloSource(root=path, split=split) for split in parts} or {"all": YoloSource(root=path)}


def _with_folders(folder: Path) -> list[Path]:
    """A folder, and those in it."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return [folder, *(folder / name for name in names)]


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with these suffixes in a folder and its subfolders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if name.lower().endswith(suffixes) and name[0] != ".")

"""Image files to RGB pixels, with stated rules for whatever is not plain 8-bit RGB.

- Files are JPEG, PNG, BMP, WebP or TIFF by their content, whatever their names say; no other reader of Pillow's is
  asked, some of which start programs of their own.
- Gray and palette images become RGB; CMYK is converted by Pillow. Alpha is dropped: hidden pixels keep their color.
- 16-bit gray is divided by 257 and rounded, so that black and white stay black and white; of 16-bit color, Pillow
  reads the high byte. Floating-point pixels have no stated range and are refused.
- A rotation in the EXIF data is applied where the annotated size asks for it: if the stored size is the annotated
  one, the boxes were drawn on the stored pixels. Images without annotated size are turned upright.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.endings import has_text_or_exif, reaches_its_end
from ssodkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
"""What is decoded, as Pillow names it, and how such files are called."""
ORIENTATION = 0x0112
"""The EXIF tag; values 5 to 8 swap width and height."""


def decode_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """RGB pixels (height, width, 3) of an image file whose annotated height and width are `size`.

    Raises DataError with the path if the file is missing, broken, larger than Pillow's limit, of another size, or
    of a kind that has no rule; the file is never changed.
    """
    from PIL.ImageOps import exif_transpose

    with _opened(path) as image:
        return _rgb(exif_transpose(image) if _is_to_be_turned(image, path, size) else image, f"the image {path}")


def decode_opened(image: "Image", name: str) -> NDArray[np.uint8]:
    """RGB pixels (height, width, 3) of an image that Pillow has opened or made, turned upright.

    Messages call it `name`. Raises DataError as `decode_image` does.
    """
    from PIL.ImageOps import exif_transpose

    with _explained(name):
        return _rgb(exif_transpose(image), name)


def check_image(path: Path, size: tuple[int, int] | None = None) -> int:
    """How many pixels an image has. Raises DataError as `decode_image` would, as far as the file's two ends tell.

    Its header says kind and size. Pixels are read only where the file does not end as one of its kind does: that it
    was cut off is seen, that there is a hole in its middle is not.
    """
    with _opened(path) as image:
        _is_to_be_turned(image, path, size)
        _refuse_floats(image, f"the image {path}")
        if not reaches_its_end(path, image.format):
            image.load()
        return image.width * image.height


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an upright image, from the file's header alone. Raises DataError as `decode_image`."""
    with _opened(path) as image:
        return _upright_size(image, path)


@contextmanager
def _opened(path: Path) -> Iterator["Image"]:
    """The image, its pixels not yet read; whatever Pillow raises inside becomes a DataError."""
    from PIL import Image

    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise DataError(f"the image {path} is no file, but a folder, a pipe or a device. Put an image in its place.")
    with _explained(f"the image {path}"), Image.open(path, formats=list(FORMATS)) as image:
        yield image


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever Pillow raises within it becomes a DataError about what is called so."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such as a broken thumbnail in the EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name} has more than the {Image.MAX_IMAGE_PIXELS or 0:,} pixels that are read at most. "
            "Make it smaller, and its boxes with it."
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} cannot be read: it is empty, broken, or of none of the kinds {', '.join(FORMATS)}. "
            "Save it as one of them."
        ) from error
    except Exception as error:  # Pillow's readers raise SyntaxError, struct.error, zlib.error and others
        raise DataError(f"{name} cannot be read: {error}. Put a whole file in its place.") from error


def _is_to_be_turned(image: "Image", path: Path, size: tuple[int, int] | None) -> bool:
    """Whether the rotation in the EXIF data is applied. Raises DataError if neither way gives the annotated size."""
    stored = (image.height, image.width)
    if size in (None, stored):
        return size is None
    if size == _upright_size(image, path):
        return True
    guess = "Was it turned after it was annotated?" if size == stored[::-1] else "Is it another version of the image?"
    raise DataError(
        f"the image {path} is {stored[0]} x {stored[1]} pixels (height x width), but its annotation says "
        f"{size[0]} x {size[1]}. {guess}"
    )


def _upright_size(image: "Image", path: Path) -> tuple[int, int]:
    # Looking for EXIF data, Pillow decodes a PNG file that has none: 30 ms for 640 x 480, where its chunks take one.
    has_none = image.format == "PNG" and not has_text_or_exif(path)
    if not has_none and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):
        return image.width, image.height
    return image.height, image.width


def _rgb(image: "Image", name: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), name)
    _refuse_floats(image, name)
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


def _refuse_floats(image: "Image", name: str) -> None:
    if image.mode == "F":
        raise DataError(f"{name} has floating-point pixels without a stated range. Save it with 8 bits.")


def _from_16_bit(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DataError(f"{name} has pixels outside 0 to 65535, which have no rule. Save it with 8 bits.")
    gray = ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)

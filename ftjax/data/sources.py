"""Where images come from: each source becomes one index, nothing is decoded here.

A source is `digits`, one of three TFDS data sets, or any folder of images.
scikit-learn and TFDS are imported by the function that needs them, so that a command
that only prints its help does not wait for them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ftjax.data.folders import open_folder
from ftjax.data.index import Source, Split, digest_items, refuse_empty_classes
from ftjax.data.layout import LAYOUTS
from ftjax.data.prepared import PreparedSet, open_prepared
from ftjax.data.scan import ScanFolder, scan_folder
from ftjax.machine.paths import expand_user


def open_source(
    name: str,
    *,
    data_dir: str | Path | None = None,
    cache_dir: Path,
    with_test: bool = False,
    scan: ScanFolder = scan_folder,
) -> Source:
    """Opens a source by its name in `SOURCES`, or a folder by its path.

    The official test splits (cifar10 'test', stanford_dogs 'test', food101
    'validation') become `test` and are kept apart: `val` is None there, so that
    validation images are held out of the training split. Choosing a depth on the
    test set, as Philip 2025 appears to have done, makes the reported accuracy of the
    chosen depth too good.

    Args:
        name: a key of `SOURCES`, or the path of a folder (layouts: `open_folder`). A
            folder that has the name of a source is reached as ./name.
        data_dir: where TFDS data sets lie prepared; None: $TFDS_DATA_DIR, else
            ~/tensorflow_datasets. Nothing is downloaded and no socket opened.
        cache_dir: keeps the index of TFDS data sets, and the scans of folders.
        with_test: also index the test split of TFDS data sets.
        scan: reads the files of a folder.

    Raises:
        ValueError: unknown name, folder or data set not found, no images, fewer than
            two classes, a class without images, splits with different classes.
    """
    if name in SOURCES:
        source = SOURCES[name](
            data_dir=data_dir, cache_dir=cache_dir, with_test=with_test
        )
    elif expand_user(name).exists():
        source = open_folder(name, cache_dir=cache_dir, scan=scan)
    else:
        raise ValueError(
            f"data {name!r} is neither a known data set nor an existing folder; "
            f"allowed: {', '.join(SOURCES)}, or the path of a folder {LAYOUTS}"
        )
    refuse_empty_classes(source, name)
    return source


def open_digits(*, data_dir=None, cache_dir: Path, with_test: bool) -> Source:
    """1,797 handwritten digits, 8 x 8 in 17 greys (Alpaydin & Kaynak 1998, UCI).

    By default 397 images validate and 1,400 train; there is no test split. The
    arguments are those of every opener and change nothing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "data 'digits' comes with scikit-learn: pip install \"ftjax[demo]\""
        ) from error
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    train = Split(
        labels=digits.target.astype(np.int32),
        read=pixels.__getitem__,
        name_of="digit {}".format,
        digests=partial(digest_items, read=pixels.__getitem__),
    )
    return Source(
        name="digits",
        class_names=tuple("0123456789"),
        train=train,
        val=None,
        test=None,
        note="UCI handwritten digits, 8 x 8 pixels, as shipped with scikit-learn",
        val_size=397,
    )


_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"

# Philip 2025 trains on 10 % of Food-101, 7,575 images. TFDS calls the official
# 25,250 test images of Food-101 'validation'.
SOURCES: dict[str, Callable[..., Source]] = {
    "digits": open_digits,
    "cifar10": partial(open_prepared, PreparedSet("cifar10", "3.0.2", "test", _PNG)),
    "food101": partial(
        open_prepared,
        PreparedSet("food101", "2.0.0", "validation", _JPEG, train_share=0.1),
    ),
    "stanford_dogs": partial(
        open_prepared, PreparedSet("stanford_dogs", "0.2.0", "test", _JPEG, boxes=True)
    ),
}

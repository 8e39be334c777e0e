"""TFDS data sets that lie prepared on disk, read without TensorFlow.

Preparing an official data set needs TensorFlow; reading array_record files does not.
"""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftjax.data.cache import load_or_build
from ftjax.data.index import Source, Split
from ftjax.machine.paths import expand_user


@dataclass(frozen=True)
class PreparedSet:
    """A TFDS data set: its newest version and what is particular about it here.

    Attributes:
        test: the official test split, whatever TFDS calls it.
        native: magic bytes of the format in which TFDS stores the images.
        train_share: part of the training split used where no size is asked for.
        boxes: whether the feature `objects/bbox` says where the objects are.
    """

    name: str
    version: str
    test: str
    native: bytes
    train_share: float = 1.0
    boxes: bool = False


def open_prepared(
    spec: PreparedSet, *, data_dir: str | Path | None, cache_dir: Path, with_test: bool
) -> Source:
    """Reads a prepared TFDS data set without TensorFlow; preparing it needs that.

    Raises:
        ValueError: not prepared in `data_dir`, prepared in a format that only
            TensorFlow reads, or damaged.
    """
    root = expand_user(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
    command = (
        f'pip install "ftjax[prepare]" && tfds build {spec.name} '
        f"--data_dir={shlex.quote(str(root))} "
        "--file_format=array_record"
    )
    # TFDS itself answers a wrong folder with a missing module or an attempted download.
    versions = [path.parent for path in root.glob(f"{spec.name}/*/dataset_info.json")]
    if not versions:
        raise ValueError(
            f"data {spec.name!r}: no prepared data set at "
            f"{root / spec.name / spec.version}; point --data-dir (or TFDS_DATA_DIR) "
            f"to the folder that holds {spec.name}/, or prepare it: {command}"
        )
    folder = max(versions, key=lambda path: _version_key(path.name))

    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        stored_as = builder.info.file_format
        shards = {
            name: [Path(shard) for shard in split.filepaths]
            for name, split in builder.info.splits.items()
        }
        features = builder.info.features or {}
        class_names = tuple(features["label"].names)
    except ImportError as error:
        raise _missing(spec, error) from error
    except Exception as error:  # TFDS raises many kinds for one damaged file.
        raise _damaged(spec, folder, command) from error
    if stored_as != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"data {spec.name!r}: {folder} is stored as {stored_as.value}, which only "
            f"TensorFlow reads; move it away and prepare it again: {command}"
        )

    def open_split(split: str) -> Split:
        if not shards.get(split) or not all(path.exists() for path in shards[split]):
            raise _damaged(spec, folder, command)
        try:
            records = builder.as_data_source(
                split=split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        except ImportError as error:
            raise _missing(spec, error) from error
        except Exception as error:  # array_record does not export its own kinds.
            raise _damaged(spec, folder, command) from error
        return _record_split(
            f"{spec.name} {split}",
            records,
            shards=shards[split],
            cache=cache_dir / "index",
            boxes=spec.boxes,
            damaged=_damaged(spec, folder, command),
        )

    train = open_split("train")
    note = f"TFDS {spec.name} {folder.name}, official test split kept apart"
    if not bytes(train.read(0)).startswith(spec.native):
        note += (
            "; these images were encoded anew with loss, so accuracies are not "
            "comparable with published ones"
        )
    return Source(
        name=spec.name,
        class_names=class_names,
        train=train,
        val=None,
        test=open_split(spec.test) if with_test else None,
        note=note,
        train_share=spec.train_share,
    )


def _record_split(
    name: str,
    records,
    *,
    shards: list[Path],
    cache: Path,
    boxes: bool,
    damaged: ValueError,
) -> Split:
    """Index of an array_record split.

    Labels stand inside the records, next to the images, so that all must be read
    (0.05 ms each): done once, kept in the cache with the content's digests for as long
    as the shards keep their place, size and time.
    """
    stamp = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in shards]
    key = hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]

    def build_rows():
        for start in range(0, len(records), 256):
            stop = min(start + 256, len(records))
            try:
                batch = records.__getitems__(range(start, stop))
            except Exception as error:
                raise damaged from error
            for record in batch:
                label = np.array([record["label"]], "<i4").tobytes()
                digest = hashlib.sha256(record["image"]).digest()
                yield np.frombuffer(label + digest, np.uint8)

    index = load_or_build(
        cache / f"{key}.npy",
        dtype="|u1",
        shape=(len(records), 4 + 32),
        build_rows=build_rows,
    ).array
    return Split(
        labels=np.ascontiguousarray(index[:, :4]).view("<i4")[:, 0].astype(np.int32),
        read=lambda item: records[item]["image"],
        name_of=lambda item: f"{name} record {item}",
        digests=lambda items: index[items, 4:],
        boxes=(lambda item: records[item]["objects"]["bbox"]) if boxes else None,
        published=True,
    )


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in version.split("."))


def _missing(spec: PreparedSet, error: ImportError) -> ValueError:
    """TFDS imports some packages late, and does not declare all of them."""
    return ValueError(
        f"data {spec.name!r}: TFDS cannot read it ({error}); the data set is not to "
        "blame: install what is missing with pip, and start again"
    )


def _damaged(spec: PreparedSet, folder: Path, command: str) -> ValueError:
    return ValueError(
        f"data {spec.name!r}: the data set at {folder} is incomplete or damaged; "
        f"remove it and prepare it again: {command}"
    )

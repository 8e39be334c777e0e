"""Readers of what others wrote, each with small whole inputs: for fuzzing.

A reader takes any bytes: it gives a value, or raises ValueError (Damaged is one) in one
line. `python tests/fuzzed.py NAME SECONDS` fuzzes one of them, guided by coverage.
"""

import io
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

TRIAL = "0123456789ab"


def tensors_of(content, folder):
    from ftjax.weights.readers import read_tensors

    path = folder / "weights"
    path.write_bytes(content)
    return {name: tensor.shape for name, tensor in read_tensors(path).items()}


def record_of(content, folder):
    from ftjax.sweep import records

    path = records.trial_folder(folder, TRIAL) / records.RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return records.read_trial(folder, TRIAL)


def array_of(content, folder):
    from ftjax.sweep import records

    path = records.trial_folder(folder, TRIAL) / records.CORRECT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return records.read_correct(folder, TRIAL)


def image_of(content, folder):
    from ftjax.data.decode import decode_image

    return decode_image(content)


def sent_of(content, folder):
    from ftjax.machine.exchange import decode

    return decode(content)


READERS = {
    "tensors": tensors_of,
    "record": record_of,
    "array": array_of,
    "image": image_of,
    "sent": sent_of,
}


@cache
def whole_inputs(name):
    """Small files that the reader reads."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    if name == "tensors":
        from safetensors.numpy import save
        from weights.test_torch_files import code, legacy, whole, zipped

        body = code({"a.weight": whole("0", array)})
        return [
            save({"a": array}),
            legacy(body, {"0": array}),
            zipped(body, {"0": array}),
            hdf5(array),
        ]
    if name == "record":
        from ftjax.sweep import records

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            records.write_trial(
                out, TRIAL, canonical={"seed": 0}, status="done", epochs=[{"loss": 0.5}]
            )
            return [(records.trial_folder(out, TRIAL) / records.RECORD).read_bytes()]
    if name == "array":
        file = io.BytesIO()
        np.save(file, array > 2)
        return [file.getvalue()]
    if name == "image":
        from made_images import FORMATS, encode, smooth_image

        return [encode(smooth_image(1), kind) for kind in FORMATS]
    from ftjax.machine.exchange import encode

    return [encode(({"a": array}, frozenset({1}), Path("x"), ValueError("y")))]


def hdf5(array):
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made.attrs["layer_names"] = [b"conv"]
        group = made.create_group("conv")
        group.attrs["weight_names"] = [b"conv/kernel:0"]
        group["conv/kernel:0"] = array
    return file.getvalue()


def check(name, content, folder):
    """Reads any bytes; all that may be raised is ValueError of one line."""
    try:
        READERS[name](content, folder)
    except ValueError as error:
        assert "\n" not in str(error), str(error)


def main(name, seconds):
    import atheris

    seeds = Path(tempfile.mkdtemp())
    for number, content in enumerate(whole_inputs(name)):
        (seeds / str(number)).write_bytes(content)
        check(name, content, seeds)  # imports what is not instrumented
    sys.path.insert(0, str(Path(__file__).parents[1]))
    with atheris.instrument_imports(include=["ftjax"]):
        for module in [m for m in sys.modules if m.startswith("ftjax")]:
            del sys.modules[module]
        check(name, content, seeds)
    folder = Path(tempfile.mkdtemp())
    words = [sys.argv[0], str(seeds), f"-max_total_time={seconds}", "-max_len=4096"]
    atheris.Setup(words, lambda content: check(name, content, folder))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

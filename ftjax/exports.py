"""A trained network taken home: which formats there are, and what each file says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ftjax.data.decode import RULE
from ftjax.machine.files import read_json
from ftjax.predictor import Predictor
from ftjax.weights import export
from ftjax.weights.export_keras import keras_bytes
from ftjax.weights.export_onnx import onnx_bytes
from ftjax.weights.export_torch import torch_bytes, torch_code
from ftjax.weights.graph import Node
from ftjax.weights.graph_units import make_graph
from ftjax.weights.licences import licence_of

KERAS_WEIGHTS = ".weights.h5"  # instead of a whole model, for keras.applications


class Exported(NamedTuple):
    """A file that was written.

    Attributes:
        path: of the file.
        code: Python that loads it and classifies images.
    """

    path: Path
    code: str


def export_network(
    predictor: Predictor,
    run_dir: Path,
    *,
    format: str = "safetensors",
    path: Path | None = None,
) -> Exported:
    """Writes a trained network as a file.

    Args:
        predictor: the network.
        run_dir: the run's folder.
        format: a key of `FORMATS`.
        path: of the file, replaced if it is there; None: in the run's folder, with the
            network's name and depth. Ending in .weights.h5, format `keras` writes
            weights for the model that keras.applications builds.

    Raises:
        ValueError: the format is unknown or does not take the network, or the file
            cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    suffix, write = FORMATS[format]
    network = predictor.network
    if path is None:
        path = run_dir / f"{network.name}-depth{predictor.depth_layers}{suffix}"
    if format == "keras" and path.name.endswith(KERAS_WEIGHTS):
        code = export.keras_code(
            network, image_size=predictor.image_size, file_name=str(path)
        )
        export.export_keras(path, network, predictor.params, predictor.batch_stats)
        return Exported(path, code)
    if not path.name.endswith(suffix):
        raise ValueError(f"{path} must end in {suffix} for format {format}")
    content, code = write(predictor, describe(predictor, run_dir), str(path))
    export.write_file(path, content)
    return Exported(path, code)


def describe(predictor: Predictor, run_dir: Path) -> dict[str, str]:
    """What a file says of its network: text by name.

    Preprocessing, classes, licence of the weights, the run's sentence, and which trial
    it is. What is no text is JSON.
    """
    config = read_json(run_dir / "config.json")["config"]
    advice = read_json(run_dir / "recommendation.json") or {}
    preprocessing = predictor.network.body[0].module.preprocessing
    weights = config["weights"]
    named = weights if weights in ("imagenet", "random") else Path(weights).name
    return {
        "model": predictor.network.name,
        "weights": named,
        "weights_licence": licence_of(predictor.network.name, weights),
        "class_names": json.dumps(list(predictor.class_names)),
        "image_size": str(predictor.image_size),
        "input": "RGB in 0..255, (batch, height, width, 3)",
        "preprocessing": json.dumps(
            {
                "resize": RULE,
                "channels": "BGR" if preprocessing.bgr else "RGB",
                "mean": preprocessing.mean,
                "std": preprocessing.std,
            }
        ),
        "temperature": repr(predictor.temperature),
        "trial": predictor.trial,
        "depth_layers": str(predictor.depth_layers),
        "bn": predictor.bn,
        "val_accuracy": repr(predictor.val_accuracy),
        "answer": advice.get("sentence", ""),
    }


def as_safetensors(predictor: Predictor, about: dict[str, str], path: str):
    """Our own names: `--weights PATH` reads it back bit for bit."""
    content = export.safetensors_bytes(
        predictor.network, predictor.params, predictor.batch_stats, about
    )
    return content, ""


def as_torch(predictor: Predictor, about: dict[str, str], path: str):
    """The names of timm or torchvision."""
    size = predictor.image_size
    about = about | {
        "input": f"(batch, 3, {size}, {size}): channels as in preprocessing, 0..255, "
        "minus mean, over std"
    }
    content = torch_bytes(
        predictor.network,
        predictor.params,
        predictor.batch_stats,
        size=size,
        about=about,
    )
    return content, torch_code(predictor.network, size=size, file_name=path)


def as_keras(predictor: Predictor, about: dict[str, str], path: str):
    """A whole Keras 3 model."""
    size = predictor.image_size
    content = keras_bytes(predictor.network, nodes(predictor), size=size, about=about)
    code = (
        "import keras\n\n"
        f"model = keras.saving.load_model({path!r})\n"
        f"# images: RGB in 0..255, (batch, {size}, {size}, 3)\n"
        "logits = model.predict(images)\n"
    )
    return content, code


def as_onnx(predictor: Predictor, about: dict[str, str], path: str):
    """An ONNX graph."""
    size = predictor.image_size
    content = onnx_bytes(
        nodes(predictor),
        name=predictor.network.name,
        size=size,
        temperature=predictor.temperature,
        about=about,
    )
    code = (
        "import onnxruntime\n\n"
        f"session = onnxruntime.InferenceSession({path!r})\n"
        f"# images: float32, RGB in 0..255, (batch, {size}, {size}, 3)\n"
        'logits, probabilities = session.run(None, {"images": images})\n'
    )
    return content, code


def nodes(predictor: Predictor) -> tuple[Node, ...]:
    """The network's operations."""
    weights = predictor.params, predictor.batch_stats
    return make_graph(predictor.network, *weights, predictor.image_size)


Writer = Callable[[Predictor, dict[str, str], str], tuple[bytes, str]]
FORMATS: dict[str, tuple[str, Writer]] = {
    "safetensors": (".safetensors", as_safetensors),
    "keras": (".keras", as_keras),
    "onnx": (".onnx", as_onnx),
    "torch": (".torch.safetensors", as_torch),
}

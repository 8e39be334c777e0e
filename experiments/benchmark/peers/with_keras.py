"""Keras 3 as its transfer-learning guide uses it: `trainable` flags and `fit`."""

from collections.abc import Iterator

import keras
import numpy as np

from experiments.benchmark.peers import STEPS, Work, random_batch, seconds_of

BUILDERS = {
    "effnetb0": keras.applications.EfficientNetB0,
    "resnet50": keras.applications.ResNet50,
    "resnet152": keras.applications.ResNet152,
    "vgg16": keras.applications.VGG16,
}


def check_device(work: Work) -> None:
    """Raises RuntimeError if Keras would compute elsewhere than the others."""
    kinds = {device.split(":")[0] for device in keras.distribution.list_devices()}
    if work.device not in kinds:
        raise RuntimeError(f"{keras.backend.backend()} sees no {work.device}")


def build(work: Work, depth: int) -> keras.Model:
    """A compiled model with its top `depth` layers and the head trainable."""
    keras.utils.set_random_seed(0)
    mixed = work.dtype == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
    shape = (work.image_size, work.image_size, 3)
    base = BUILDERS[work.model](include_top=False, weights=None, input_shape=shape)
    layers = base.layers[1:]
    for number, layer in enumerate(layers):
        layer.trainable = number >= len(layers) - depth
    inputs = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(base(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, dtype="float32")(x))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def steps(work: Work) -> Iterator[float]:
    """`fit` on as many batches as a turn has steps."""
    check_device(work)
    model = build(work, work.depths[0])
    images, labels = random_batch(work)
    x, y = (np.concatenate([array] * STEPS) for array in (images, labels))

    def run(rows: int) -> None:
        model.fit(
            x[:rows].astype(np.float32),
            y[:rows],
            batch_size=work.batch_size,
            verbose=0,
            shuffle=False,
        )

    yield seconds_of(lambda: run(work.batch_size))
    run(len(x))  # another length may trace again
    while True:
        yield seconds_of(lambda: run(len(x))) / STEPS


def grid(work: Work) -> Iterator[float]:
    """One trial per turn, the model built anew as a script would."""
    check_device(work)
    images = np.load(work.images)
    train, val = (
        (images[f"{s}_images"].astype(np.float32), images[f"{s}_labels"])
        for s in ("train", "val")
    )

    def fit(depth: int) -> None:
        keras.backend.clear_session()
        model = build(work, depth)
        options = dict(batch_size=work.batch_size, verbose=0)
        model.fit(*train, epochs=work.epochs, validation_data=val, **options)
        # Its own training accuracy is of the batches, while the network changes.
        model.evaluate(*train, **options)

    for _ in range(work.seeds):
        for depth in sorted(work.depths, reverse=True):
            yield seconds_of(lambda depth=depth: fit(depth))

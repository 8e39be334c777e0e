"""The paper's data sets, accuracies and block counts: are they possible?"""

import math

import numpy as np

from ftjax.paper.source import Check, Experiment, load_paper


def grim_possible(accuracy: float, size: int, *, digits: int = 4) -> bool:
    """Whether some whole number of right answers out of `size` rounds to `accuracy`.

    Source: the GRIM test, Brown and Heathers 2017, for proportions.

    Args:
        accuracy: fraction 0..1 as printed.
        size: number of images.
        digits: printed decimals.
    """
    half = 0.5 * 10**-digits + 1e-12
    return math.floor((accuracy + half) * size) >= math.ceil((accuracy - half) * size)


def smallest_possible_size(accuracies, *, limit: int = 20000, digits: int = 4) -> int:
    """Smallest number of images with which all printed accuracies are possible.

    Raises:
        ValueError: none up to `limit`.
    """
    for size in range(1, limit + 1):
        if all(grim_possible(float(a), size, digits=digits) for a in accuracies):
            return size
    raise ValueError(f"no size up to {limit} fits all accuracies")


def check_grim(e: Experiment) -> list[Check]:
    """Which printed validation accuracies the validation set cannot give."""
    impossible = [a for a in e.val_accuracy if not grim_possible(a, e.val_size)]
    smallest = smallest_possible_size(e.val_accuracy)
    train = sum(grim_possible(a, e.train_size) for a in e.accuracy)
    text = (
        f"{len(impossible)} of {len(e.val_accuracy)} impossible"
        + (f" ({', '.join(f'{a:.4f}' for a in impossible)})" if impossible else "")
        + f"; the smallest set that gives all of them has {smallest} images; "
        f"{train} of {len(e.accuracy)} training accuracies fit {e.train_size}"
    )
    checks = [
        Check(
            f"{e.model} / {e.dataset}: validation accuracies as k / {e.val_size}",
            f"{e.val_size} images",
            text,
            "impossible" if impossible else "agrees",
        )
    ]
    held_out = e.train_size // 10
    if not impossible and held_out < smallest:
        checks.append(
            Check(
                f"{e.model} / {e.dataset}: a validation split apart from the test set",
                "train, validation and test",
                f"10 % of training, {held_out} images, cannot give these accuracies; "
                f"the {e.val_size} test images can: the depth was probably chosen on "
                "the test set",
                "impossible",
            )
        )
    return checks


def difference_z(first: float, second: float, size: int) -> float:
    """The z score of two accuracies, binomials of variance p(1-p) / n each."""
    variance = (first * (1 - first) + second * (1 - second)) / size
    return (first - second) / math.sqrt(variance)


def check_noise(resnet: Experiment, vgg: Experiment) -> list[Check]:
    """Two differences between neighbouring depths, in binomial standard errors."""

    def compare(e: Experiment, first: int, second: int) -> tuple[float, float]:
        at = {int(L): a for L, a in zip(e.depth, e.val_accuracy, strict=True)}
        return at[first] - at[second], difference_z(at[first], at[second], e.val_size)

    cliff, cliff_z = compare(resnet, 210, 230)
    top, top_z = compare(vgg, 18, 14)
    return [
        Check(
            "ResNet152: accuracy falls from L = 210 to 230",
            "0.5201 to 0.3767",
            f"{100 * cliff:.1f} points for two of 36 like blocks, z = {cliff_z:.1f}: "
            "not sampling noise and no smooth curve, but one unreplicated run",
            "misleading",
        ),
        Check(
            "VGG16: all 18 layers are needed",
            "0.8373 at L = 18",
            f"L = 14 is {100 * top:.2f} points lower, z = {top_z:.2f}",
            "misleading",
        ),
    ]


def check_overfitting(e: Experiment) -> Check:
    """'Unfreezing too many layers leads to overfitting', by the printed tables."""
    gap = e.accuracy - e.val_accuracy
    best, deep = int(np.argmax(e.val_accuracy)), len(e.depth) - 1
    if e.val_accuracy[deep] == e.val_accuracy[best]:
        told = f"no fall; the gap stays within {gap.min():.3f}-{gap.max():.3f}"
        return Check(f"{e.model}: overfitting at depth", "claimed", told, "wrong")
    train_falls = e.accuracy[deep] < e.accuracy[best] - 0.05
    told = (
        f"from L = {e.depth[best]:.0f} to {e.depth[deep]:.0f} training accuracy goes "
        f"{e.accuracy[best]:.3f} to {e.accuracy[deep]:.3f}, the gap {gap[best]:+.3f} "
        f"to {gap[deep]:+.3f}"
    )
    if train_falls:
        told += ": training fails too, which is not overfitting"
    return Check(
        f"{e.model}: overfitting at depth",
        "claimed",
        told,
        "wrong" if train_falls else "agrees",
    )


def check_datasets(experiments: dict[str, Experiment]) -> list[Check]:
    """Sizes that contradict each other."""
    dogs = load_paper()["dogs"]
    vgg, small = experiments["vgg16"], experiments["efficientnetb0"]
    sizes = {e.dataset: e.train_size for e in experiments.values()}
    mean = dogs["images"] / dogs["classes"]
    ratio = vgg.parameters / small.parameters
    return [
        Check(
            "Stanford Dogs: images in each class",
            f"{dogs['per_class_claimed']} (of {dogs['images']})",
            f"{mean:.1f} on average; {dogs['classes']} x {dogs['per_class_claimed']} = "
            f"{dogs['classes'] * dogs['per_class_claimed']}",
            "wrong",
        ),
        Check(
            "CIFAR-10 is the small data set",
            "small, simple",
            f"its {max(sizes.values())} training images are the most of the three",
            "wrong",
        ),
        Check(
            "VGG16 is extremely lightweight",
            "only 18 layers",
            f"{ratio:.2f}x the parameters of EfficientNetB0 without top",
            "wrong",
        ),
    ]


def check_blocks(total_layers: int) -> list[Check]:
    """EfficientNetB0's table of blocks against the Keras graph.

    Args:
        total_layers: 237, layers of the graph without the input layer.
    """
    blocks = load_paper()["efficientnetb0_blocks"]
    printed, keras = blocks["printed"], blocks["keras"]
    right = sum(count == keras[name][0] for name, (count, _, _) in printed.items())
    missing = [name for name in keras if name not in printed]
    odd = [
        f"{name} counts {count} but {first}-{last} is {last - first + 1}"
        for name, (count, first, last) in printed.items()
        if last - first + 1 != count
    ]
    covered = {i for _, first, last in printed.values() for i in range(first, last + 1)}
    holes = sorted(set(range(min(covered), max(covered) + 1)) - covered)
    claimed = {
        index
        for name in blocks["claimed"]
        for index in range(keras[name][1], keras[name][2] + 1)
    }
    layers = blocks["claimed_layers"]
    top = set(range(total_layers - layers + 1, total_layers + 1))
    shared = len(claimed & top)
    jaccard = shared / len(claimed | top)
    names = " + ".join(name.removeprefix("block") for name in blocks["claimed"])
    untouched = [
        name
        for name in blocks["claimed"]
        if not top & set(range(keras[name][1], keras[name][2] + 1))
    ]
    stages = len({name[:6] for name in keras})
    return [
        Check(
            "EfficientNetB0 table 8: layers of each block",
            f"{len(printed)} counts",
            f"{right} of {len(printed)} right; {', '.join(missing)} is missing; index "
            f"{', '.join(map(str, holes))} is in no block; {'; '.join(odd)}; they sum "
            f"to {sum(c for c, _, _ in printed.values())}, true "
            f"{sum(c for c, _, _ in keras.values())}",
            "wrong",
        ),
        Check(
            f"EfficientNetB0: blocks {names}",
            f"{layers} layers",
            f"{len(claimed)} layers ({100 * len(claimed) / total_layers:.1f} %)",
            "wrong",
        ),
        Check(
            f"EfficientNetB0: they are the {layers} layers closest to the output",
            "the same layers",
            f"they share {shared} layers (Jaccard {jaccard:.2f}); the top {layers} "
            f"hold nothing of {', '.join(untouched)}",
            "wrong",
        ),
        Check(
            "EfficientNetB0 has seven blocks",
            "7 blocks",
            f"{stages} stages, {len(keras)} blocks",
            "wrong",
        ),
    ]

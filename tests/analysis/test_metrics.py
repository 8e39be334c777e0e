"""Metrics from logits: as scikit-learn has them, and what each image adds to them."""

import numpy as np
import pytest

from ftjax.analysis.metrics import (
    METRICS,
    accuracy_scores,
    baseline,
    class_changes,
    class_table,
    confusion_matrix,
    default_metric,
    image_scores,
    is_uneven,
    last_logits,
    log_probabilities,
    measure,
)


def made(n=300, classes=4, key=0):
    """Uneven labels and logits that know something of them, with ties."""
    rng = np.random.default_rng(key)
    shares = np.array([8, 4, 2, 1])[:classes]
    labels = rng.choice(classes, size=n, p=shares / shares.sum())
    logits = rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[labels]
    return np.round(logits, 1), labels


def by_scikit(metric, logits, labels):
    sklearn = pytest.importorskip("sklearn.metrics")
    chances, answers = np.exp(log_probabilities(logits)), logits.argmax(axis=1)
    if metric == "accuracy":
        return sklearn.accuracy_score(labels, answers)
    if metric == "balanced_accuracy":
        return sklearn.balanced_accuracy_score(labels, answers)
    if metric == "macro_f1":
        return sklearn.f1_score(labels, answers, average="macro")
    if metric == "auroc":
        if chances.shape[1] == 2:
            return sklearn.roc_auc_score(labels, chances[:, 1])
        return sklearn.roc_auc_score(labels, chances, multi_class="ovr")
    return sklearn.log_loss(labels, chances)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_those_of_scikit_learn(metric):
    logits, labels = made()
    found = measure(logits, labels, metric)
    assert found.value == pytest.approx(by_scikit(metric, logits, labels), abs=1e-9)
    constant = np.tile(np.log(np.bincount(labels) / len(labels)), (len(labels), 1))
    majority = by_scikit(metric, constant, labels)
    assert found.baseline == pytest.approx(majority, abs=1e-9)
    assert baseline(labels, metric) == found.baseline


@pytest.mark.parametrize("metric", METRICS)
def test_images_are_resampled_as_the_metric_itself(metric):
    """The spread of the mean of the scores is that of the metric over samples."""
    logits, labels = made(n=400, classes=2 if metric == "auroc" else 4)
    scores = image_scores(logits, labels, metric)
    rng = np.random.default_rng(1)
    values = []
    for _ in range(300):
        take = rng.integers(0, len(labels), len(labels))
        values.append(image_scores(logits[take], labels[take], metric).mean())
    assert np.std(scores) / np.sqrt(len(labels)) == pytest.approx(
        np.std(values), rel=0.3
    )


def test_uneven_classes_are_noticed():
    assert not is_uneven(np.repeat([0, 1], [50, 50]))
    assert not is_uneven(np.repeat([0, 1, 2], [33, 30, 37]))
    assert is_uneven(np.repeat([0, 1], [90, 10]))
    assert default_metric(np.repeat([0, 1], [90, 10])) == "balanced_accuracy"
    assert default_metric(None) == default_metric(np.arange(4)) == "accuracy"


def test_balanced_accuracy_from_correctness_alone():
    logits, labels = made()
    right = logits.argmax(axis=1) == labels
    by_logits = image_scores(logits, labels, "balanced_accuracy")
    np.testing.assert_allclose(
        accuracy_scores(right, labels, "balanced_accuracy"), by_logits
    )
    with pytest.raises(ValueError, match="macro_f1 needs the labels and logits"):
        accuracy_scores(right, labels, "macro_f1")
    with pytest.raises(ValueError, match="balanced_accuracy needs the labels of"):
        accuracy_scores(right, None, "balanced_accuracy")


def test_classes_and_what_they_are_taken_for():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 1])
    matrix = confusion_matrix(predicted, labels, 3)
    np.testing.assert_array_equal(matrix, [[2, 1, 0], [0, 2, 0], [0, 1, 0]])
    table = class_table(predicted, labels, ("a", "b", "c")).set_index("class")
    assert table.loc["a", "recall"] == pytest.approx(2 / 3)
    assert table.loc["b", "precision"] == pytest.approx(0.5)
    assert table.loc["c", "f1"] == 0 and table.loc["c", "taken_for"] == "b"
    assert table.loc["b", "taken_for"] == ""
    changes = class_changes(
        np.array([labels == 0, predicted == labels]), labels, ("a", "b", "c"), 1
    ).set_index("class")
    assert changes.loc["a", 0] == pytest.approx(1 / 3)
    assert changes.loc["b", 0] == -1.0 and changes.loc["c", 0] == 0.0


def test_files_hold_one_epoch_or_all():
    logits = np.zeros((3, 5, 2), np.float16)
    logits[-1] = 1
    assert (last_logits(logits) == 1).all() and last_logits(logits).shape == (5, 2)
    assert last_logits(logits[0]).dtype == np.float32
    with pytest.raises(ValueError, match="must be .epochs, n, classes"):
        last_logits(np.zeros(3))


def test_bad_input_is_named():
    logits, labels = made(n=20)
    with pytest.raises(ValueError, match="unknown metric 'kappa'; choose from"):
        measure(logits, labels, "kappa")
    with pytest.raises(ValueError, match=r"logits must be \(n, classes\) with n = 19"):
        measure(logits, labels[1:], "accuracy")
    with pytest.raises(ValueError, match="labels go to 3, but the logits have 2"):
        measure(logits[:, :2], np.full(20, 3), "accuracy")
    with pytest.raises(ValueError, match="auroc needs images of two classes"):
        measure(logits, np.zeros(20, int), "auroc")
    with pytest.raises(ValueError, match="labels must be"):
        is_uneven(np.zeros(3))

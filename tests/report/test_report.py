"""The report page: complete, self-contained, escaped, and clean in a real browser."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from html_page import Page
from made_sweep import made_epochs, made_results, unfinish

from ftjax.analysis.recommend import recommend
from ftjax.analysis.wording import depth_span
from ftjax.report import page as page_module
from ftjax.report.facts import answer_parts, key_facts
from ftjax.report.notices import batchnorm_advice, notices
from ftjax.report.page import write_report
from ftjax.report.sections import Block, Report, Section
from ftjax.report.tables import class_tables, trial_table

FIGURES = {"depth", "batchnorm", "loss", "cost", "epochs"}
HOSTILE = '<script>alert("x")</script>&/data/my images'
COMMAND = "python -m experiments.sweep --data 'a & b' --bn follow frozen"


def report(tmp_path, results, *, epochs=None, **changes) -> tuple[Page, str]:
    done = bool((results["status"] == "done").any())
    arguments = {
        "results": results,
        "epochs": made_epochs(results) if epochs is None else epochs,
        "best": recommend(results, bootstrap=200) if done else None,
        "config": {"model": {"name": "effnetlite0"}, "depths": (0, 3), "lr": 1e-4},
        "environment": {"jax": "0.0.0", "device": "cpu", "git_commit": "abc123"},
        "command": COMMAND,
    }
    run = Report(tmp_path / "run", **{**arguments, **changes})
    path = write_report(run.folder / "report.html", run)
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(folder):
    return report(folder, made_results())


def test_a_section_is_a_function_in_a_list(tmp_path, monkeypatch):
    def more(run):
        return Section("News", (Block("text", f"of {run.folder.name} <b>"),))

    monkeypatch.setattr(page_module, "SECTIONS", (more, lambda run: None))
    _, text = report(tmp_path, one_image(made_results()), epochs=NO_EPOCHS)
    assert "<h2>News</h2>" in text and "<p>of run &lt;b&gt;</p>" in text
    assert "<h2>All depths</h2>" not in text


def one_image(results):
    """The columns that only the main image needs: a page of it is drawn fast."""
    absent = ["val_loss", "train_mode_accuracy", "seconds", "flops"]
    return results.drop(columns=absent)


NO_EPOCHS = made_epochs(made_results()).iloc[:0]


def test_page_needs_nothing_from_outside(page):
    parsed, text = page
    assert parsed.links
    assert [v for v in parsed.links if not v.startswith(("#", "data:"))] == []
    assert parsed.tags.count("script") == 1  # sorts tables
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_every_image_is_there_with_a_text_in_its_place(page):
    parsed, _ = page
    assert FIGURES <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.tags.count("svg") == 2 * len(FIGURES)  # a page, a phone
    assert len(parsed.labels) == len(FIGURES)
    assert "98.5" in parsed.labels[0] and "84 layers" in parsed.labels[0]
    targets = {link[1:] for link in parsed.links if link.startswith("#")}
    assert targets <= set(parsed.ids)


def test_drawings_follow_the_color_scheme(page):
    _, text = page
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawings)) == set()


def test_page_says_answer_reason_table_and_making(page):
    parsed, _ = page
    words = " ".join("".join(parsed.text).split())
    order = [
        "unfreeze the top 84 of 149 layers",
        "Why",
        "What the two modes are",
        "--bn recalibrate",
        "All depths",
        "More images",
        "Warnings",
        COMMAND,
        "9f2c" * 16,
        "git_commit",
        "model.name",
        "arXiv:1502.03167",
    ]
    places = [words.index(part) for part in order]
    assert places == sorted(places)
    columns = ["Layers Unfreeze", "Accuracy", "Loss", "Val-accuracy", "Val-loss"]
    assert set(columns) <= set(parsed.headers)
    assert "149 (100 %)" in parsed.headers and "recommended" in parsed.headers
    # All depths; two of fits for each policy; environment and configuration.
    assert parsed.tags.count("caption") == parsed.tags.count("table") == 7


def test_fits_stand_with_their_errors(page):
    parsed, _ = page
    columns = ["Predicted", "Squared error", "Absolute error", "MSE", "MAE"]
    assert set(columns) <= set(parsed.headers)
    words = " ".join("".join(parsed.text).split())
    results = made_results(bn=("frozen",))
    depth, y = results["depth_layers"], results["val_accuracy"]
    values = np.polyval(np.polyfit(depth, y, 2), depth)
    own = words.split("by the parabola, BatchNorm frozen")[1]
    assert all(f"{value:.4f}" in own for value in values)
    assert f"{np.mean((values - y) ** 2):.6f}" in words


def test_numbers_of_the_table_are_those_of_the_results():
    results = made_results(seeds=3)
    table = trial_table(results, None)
    assert len(
        table.rows
    ) == 18 and "(standard deviation in points) of up to 3 seeds" in (table.caption)
    for _, cells in table.rows:
        row = dict(zip(table.columns, (cell.text for cell in cells), strict=True))
        depth, bn = int(row["Layers Unfreeze"].split()[0]), row["BatchNorm"]
        part = results[(results["depth_layers"] == depth) & (results["bn"] == bn)]
        for name, column in (
            ("Accuracy", "accuracy"),
            ("Val-accuracy", "val_accuracy"),
        ):
            mean, spread = 100 * part[column].mean(), 100 * part[column].std()
            assert row[name] == f"{mean:.1f}\N{NO-BREAK SPACE}% ({spread:.1f})"
        assert row["Val-loss"] == f"{part['val_loss'].mean():.4f}"
        assert row["Trainable params"] == f"{12_810 + 150 * depth**2:,}"
        assert row["Freeze proven"] == "yes"
    assert "all done" in table.caption and "Status" not in table.columns
    unfinished = trial_table(unfinish(results, [0], "failed"), None)
    statuses = {cells[-1].text for _, cells in unfinished.rows}
    assert unfinished.columns[-1] == "Status" and statuses == {
        "done",
        "2 done, 1 failed",
    }


def test_user_text_is_escaped(tmp_path):
    results = made_results(model=HOSTILE).assign(data=HOSTILE, bn=HOSTILE)
    results = results.drop_duplicates(["depth_layers", "seed"]).assign(bn="follow")
    parsed, text = report(
        tmp_path,
        one_image(results),
        epochs=NO_EPOCHS,
        config={HOSTILE: {"name": HOSTILE}},
        environment={"path": HOSTILE},
        command=HOSTILE,
    )
    assert parsed.tags.count("script") == 1 and "alert" in text
    assert HOSTILE not in text
    assert "".join(parsed.text).count(HOSTILE) >= 5


def test_unfinished_failed_random_and_broken_trials_are_named(tmp_path):
    results = unfinish(made_results(), [2], "failed")
    results = unfinish(results, [17], "pending").assign(weights="random")
    results.loc[4, "frozen_intact"] = False
    levels = dict.fromkeys(level for level, _ in notices(results))
    assert set(levels) == {"warn", "bad"}
    parsed, _ = report(tmp_path, one_image(results), epochs=NO_EPOCHS)
    words = " ".join("".join(parsed.text).split())
    assert "Random weights: this network was not pretrained" in words
    assert "Freeze broken in 1 trial (depth 54)" in words
    assert "left out of every mean and fit: 1 trial (depth 12)" in words
    assert "goes on with them: 1 trial (depth 149)" in words
    assert notices(made_results()) == ()
    # Said once: not again among the warnings.
    assert words.count("nothing about transfer") == 1
    assert "rows dropped" not in words


def test_stopped_trials_are_named(tmp_path):
    results = unfinish(made_results(), [2, 17], "stopped")
    parsed, _ = report(tmp_path, one_image(results), epochs=NO_EPOCHS)
    words = " ".join("".join(parsed.text).split())
    assert "Stopped early by --search halving" in words
    assert "rows dropped" not in words
    assert words.count("1 stopped") == 2


def test_probes_stand_beside_the_measured_curve(tmp_path):
    results = one_image(made_results())
    probes = results.drop_duplicates("depth_layers")[["depth_layers"]].assign(
        ridge_accuracy=0.5, logme=0.1, gradient_norm=0.2
    )
    parsed, text = report(tmp_path, results, epochs=NO_EPOCHS, probes=probes)
    assert "probes" in parsed.ids and "promises nothing" in text


def test_page_without_any_finished_trial(tmp_path):
    results = unfinish(made_results(), list(range(18)), "pending")
    parsed, _ = report(tmp_path, results, epochs=NO_EPOCHS)
    words = "".join(parsed.text)
    assert "No answer yet" in words and "svg" not in parsed.tags
    assert words.count("1 pending") == 18


def test_page_of_one_depth_and_one_policy(tmp_path):
    parsed, _ = report(tmp_path, made_results(bn=("follow",), depths=[30]))
    assert FIGURES <= set(parsed.ids)
    assert "Only one depth was tested" in "".join(parsed.text)


def test_page_of_fifty_depths(tmp_path):
    depths = np.linspace(0, 149, 50).round().astype(int)
    results = one_image(made_results(depths=depths))
    parsed, text = report(tmp_path, results, epochs=NO_EPOCHS)
    assert FIGURES & set(parsed.ids) == {"depth"}
    assert parsed.text.count("yes") == 100 and "breakout tall" in text


def test_sentence_tiles_shading_and_table_say_the_same():
    """On the code before: 'smallest depth as good: 41' beside '41-115'."""
    results = made_results(seeds=3).assign(val_size=4000)
    best = recommend(results, bootstrap=500)
    facts = dict(key_facts(results, best))
    (name,) = (key for key in facts if key.startswith("As good as can be told"))
    assert name == "As good as can be told (95 % set)"
    span = depth_span(best.not_worse, best.tested)
    assert facts[name] == span and span in best.sentence
    assert facts["The smallest of them"] == f"{best.smallest} layers"
    assert f"the smallest of them is {best.smallest}" in best.sentence
    marks = {
        int(cells[0].text.split()[0]): mark
        for mark, cells in trial_table(results, best).rows
        if cells[2].text == best.bn
    }
    assert {depth for depth, mark in marks.items() if mark} == set(best.not_worse)
    assert marks[best.depth_layers] == "best"
    assert best.interval_layers == (best.smallest, best.not_worse[-1])


def test_one_run_has_no_confidence_on_the_page(tmp_path):
    results = one_image(made_results())
    _, text = report(tmp_path, results, epochs=NO_EPOCHS)
    words = " ".join("".join(Page(text).text).split())
    assert "As good as can be told (run noise assumed)" in words
    assert "95 % set" not in words and "no confidence interval" in words


def test_what_has_to_be_said_first_stands_first(tmp_path):
    results = made_results()
    best = recommend(results, bootstrap=100, epochs=made_epochs(results))
    _, text = report(tmp_path, one_image(results), epochs=NO_EPOCHS, best=best)
    words = " ".join("".join(Page(text).text).split())
    assert words.index("Not trained to the end") < words.index("nfreeze the top 84")


def test_plus_minus_means_one_thing(page):
    parsed, _ = page
    words = " ".join("".join(parsed.text).split())
    assert "± is one standard error of a difference" in words
    rows = trial_table(made_results(seeds=3), None).rows
    assert not any("±" in cell.text for _, cells in rows for cell in cells)


def test_tables_of_classes():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    predicted = labels.copy()
    predicted[50:59] = 2
    correct = np.stack([labels == 0, predicted == labels])
    tables = class_tables(
        predicted,
        labels,
        ("cat", "dog", "fox"),
        correct=correct,
        depths=(0, 84),
        chosen=1,
    )
    classes, changes, matrix = tables
    dog = next(cells for _, cells in classes.rows if cells[0].text == "dog")
    assert [cell.text for cell in dog] == [
        "dog",
        "30",
        "70.0",
        "100.0",
        "82.4",
        "fox (9)",
    ]
    assert changes.columns == ("Class", "0 layers", "84 layers")
    gains = {cells[0].text: cells[1].text for _, cells in changes.rows}
    assert gains == {"cat": "+0.0", "dog": "-70.0", "fox": "-100.0"}
    assert [cell.text for cell in matrix.rows[1][1]] == ["dog", "0", "21", "9"]


def test_advice_depends_on_the_gap():
    assert "44 points (BatchNorm follow, 149 layers)" in batchnorm_advice(
        made_results()
    )
    frozen = made_results(bn=("frozen",))
    assert "frozen in every trial" in batchnorm_advice(frozen)
    agree = made_results(bn=("recalibrate",))
    agree["train_mode_accuracy"] = agree["accuracy"] + 0.01
    assert "no lag of the running statistics shows" in batchnorm_advice(agree)
    assert "Nothing needs to be done" in batchnorm_advice(agree)
    assert batchnorm_advice(agree.drop(columns="accuracy")) == ""


def test_advice_names_what_frozen_statistics_gain_without_a_lag():
    results = made_results()
    results["train_mode_accuracy"] = results["accuracy"]
    sides = results.pivot(index="depth_layers", columns="bn", values="val_accuracy")
    gain = 100 * (sides["frozen"] - sides["follow"]).max()
    advice = batchnorm_advice(results)
    assert f"{gain:.0f} points more (149 layers)" in advice and "--bn frozen" in advice
    assert "Nothing needs to be done" not in advice


def test_the_answer_is_shown_in_its_sentences():
    best = recommend(made_results(seeds=3), bootstrap=100)
    parts = answer_parts(best)
    assert len(parts) == len(best.parts) > 2
    assert "unfreeze the top 84" in parts[0].lower() and "±" in " ".join(parts)
    assert "+-" not in " ".join(parts)


def chromium(tmp_path, page: str, *options: str) -> subprocess.CompletedProcess:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine")
    options = (
        "--headless --no-sandbox --disable-gpu --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--enable-logging=stderr --v=0"
    ).split() + [f"--user-data-dir={tmp_path / 'profile'}", *options]
    return subprocess.run(
        [program, *options, page], capture_output=True, text=True, timeout=120
    )


def test_browser_shows_the_page_without_an_error(tmp_path, folder, page):
    place = (folder / "run" / "report.html").as_uri()
    run = chromium(tmp_path, place, "--dump-dom")
    assert run.returncode == 0
    assert "CONSOLE" not in run.stderr
    for name in FIGURES:
        assert f'<figure id="{name}">' in run.stdout
    assert run.stdout.count("<svg") == 2 * len(FIGURES)


def test_browser_never_scrolls_sideways_on_a_phone(tmp_path):
    results = made_results(depths=[0, 84, 149], model="a_long_model_name_" * 6)
    results["data"] = "/d" * 90
    _, text = report(tmp_path, results, command="python -m " + "x" * 300)
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe style="width:360px;height:800px;border:0" '
        f'srcdoc="{html.escape(text)}"></iframe><script>onload = () => {{'
        "const inner = document.querySelector('iframe').contentDocument;"
        "const shown = [...inner.querySelectorAll('svg')].filter(s => s.clientWidth);"
        "const root = inner.documentElement;"
        "document.body.dataset.over = root.scrollWidth - root.clientWidth;"
        "document.body.dataset.shown = shown.length;}</script>",
        encoding="utf-8",
    )
    run = chromium(tmp_path, frame.as_uri(), "--dump-dom")
    assert 'data-over="0"' in run.stdout
    assert f'data-shown="{len(FIGURES)}"' in run.stdout  # the narrow drawings alone


def test_a_click_sorts_the_table(page, tmp_path):
    """By accuracy, then the other way round; what has no number comes last."""
    _, text = page
    click = (
        "<script>const table = document.querySelector('.sortable');"
        "const button = table.querySelectorAll('thead button')[5];"
        "const read = () => [...table.tBodies[0].rows].map("
        "row => parseFloat(row.cells[5].textContent)).join(' ');"
        "button.click(); document.body.dataset.up = read();"
        "button.click(); document.body.dataset.down = read();"
        "document.body.dataset.sort ="
        "button.parentElement.getAttribute('aria-sort');</script></body>"
    )
    path = tmp_path / "sorted.html"
    path.write_text(text.replace("</body>", click), encoding="utf-8")
    run = chromium(tmp_path, path.as_uri(), "--dump-dom")
    up, down = (
        [float(x) for x in re.findall(f'data-{way}="([^"]*)"', run.stdout)[0].split()]
        for way in ("up", "down")
    )
    assert up == sorted(up) and down == up[::-1] and len(up) == 18
    assert 'data-sort="descending"' in run.stdout


def test_sets_of_blocks_stand_beside_the_depths(tmp_path):
    results = one_image(made_results(bn=("frozen",), depths=(0, 54, 149)))
    sets = results.assign(blocks=["stem", "block6a+block7a", "top"], val_accuracy=0.99)
    sets = sets.assign(trial=["a", "b", "c"])
    (tmp_path / "run").mkdir()
    sets.to_csv(tmp_path / "run" / "sets.csv", index=False)
    parsed, _ = report(tmp_path, results, epochs=NO_EPOCHS)
    words = " ".join("".join(parsed.text).split())
    assert "No set of blocks is shown to beat every cut: the best of 3 sets" in words
    assert "sets" in parsed.ids and "block6a+block7a" in parsed.headers
    sets.assign(data_hash="other").to_csv(tmp_path / "run" / "sets.csv", index=False)
    parsed, text = report(tmp_path, results, epochs=NO_EPOCHS)
    assert "Sets of blocks" not in text

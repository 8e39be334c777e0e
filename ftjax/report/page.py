"""The report page of a run: one HTML file that needs nothing else.

Images are inlined as SVG whose colors are CSS variables, so they follow the light
or dark scheme of the reader; a second, narrow drawing serves phones. A new section is
a function that takes the run, and its name in `SECTIONS`.
"""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ftjax.batch_norm import POLICIES
from ftjax.report import depth_plot as plots
from ftjax.report import drawing, sections
from ftjax.report.facts import answer_parts, key_facts, time_facts
from ftjax.report.fit_section import fitted_curves
from ftjax.report.gradcam_section import heat_maps
from ftjax.report.inline import draw_image
from ftjax.report.notices import notices
from ftjax.report.sections import Report, Section
from ftjax.report.set_section import gradual_unfreezing, sets_of_blocks
from ftjax.search.depths import MASS

SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    sections.why,
    sections.all_depths,
    sets_of_blocks,
    gradual_unfreezing,
    fitted_curves,
    sections.by_axis,
    sections.test_images,
    sections.classes,
    heat_maps,
    sections.more_images,
    sections.warnings,
    sections.how_it_was_made,
)


def write_report(path: str | Path, report: Report) -> Path:
    """Writes the self-contained page of a run; missing folders are made."""
    report = report.of_its_curve()
    results, best, named = report.results, report.best, report.named
    main = None
    if len(drawing.finished(results)):
        main = draw_image(
            "depth",
            lambda width: plots.depth_curve(results, named, width=width),
            "Accuracy on the validation images over the number of unfrozen layers.",
        )
    found = (section(report) for section in SECTIONS)
    first = report.first
    text = render(
        "page.html.j2",
        subject=f"{first.get('model', 'model')} on {first.get('data', 'data')}",
        best=best,
        answer=answer_parts(best) if best else (),
        caveats=best.caveats if best else (),
        facts=(
            *(key_facts(results, named) if named else ()),
            *time_facts(report.folder, report.every),
        ),
        main=main,
        notices=notices(results, best),
        sections=[section for section in found if section is not None],
        search_mass=round(100 * MASS),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def render(template: str, **values) -> str:
    """A page from a template of this folder and what it names."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(template)
    return page.render(policies=POLICIES.values(), **values)

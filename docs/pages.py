"""Pages that the site's build makes: each command's help, the README's picture."""

import contextlib
import io
import os
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PICTURE = "images/depth_curve.png"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds `commands.md` and the picture to the pages."""
    root = Path(config.config_file_path).parent
    picture = root / "experiments" / PICTURE
    files.append(File.generated(config, PICTURE, abs_src_path=str(picture)))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def commands() -> str:
    """The command reference: what `ftjax COMMAND --help-all` prints."""
    os.environ["COLUMNS"] = "100"
    os.environ["NO_COLOR"] = "1"
    from ftjax.commands import COMMANDS, main

    parts = ["# Commands\n"]
    for name, purpose in COMMANDS.items():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([name, "--help-all" if name == "sweep" else "--help"])
        text = "\n".join(line.rstrip() for line in said.getvalue().splitlines())
        parts.append(f"## {name}\n\n{purpose}.\n\n```text\n{text}\n```\n")
    return "\n".join(parts)

"""`visionloop init`: a complete, commented conf/params.yaml for images of the user's own.

A preset gives every value; what the images decide is put in its place, with the reason.
"""

import difflib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from flows.recommend import Changes, recommend
from flows.survey import Survey, survey
from tasks.data.sources.detect import TORCHVISION, detect
from tasks.errors import DataError, ParamsError
from tasks.files import write_text
from tasks.params import PARAMS_FILE, check_params, load_params, load_settings, read_yaml
from tasks.schema import Ingest, Source

PRESETS = Path("conf/presets")
QUICKSTART = "quickstart"
DIGITS = "digits"
_SMALL_SIDE = 64
_COMMENTS = 30  # the column of comments in the presets
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[a-z/][\w./-]*", re.IGNORECASE)
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class Proposal:
    """The new text of conf/params.yaml, and what it was decided from (None: the quickstart)."""

    text: str
    old: str
    preset: str
    survey: Survey | None


def propose(data: list[str], preset: str | None, labels: list[str] | None) -> Proposal:
    """Look at the sources `data` (["digits"]: the quickstart) and decide; writes no params.

    Raises DataError for sources that cannot be learnt from, ParamsError for an unknown preset.
    """
    old = PARAMS_FILE.read_text(encoding="utf-8") if PARAMS_FILE.exists() else ""
    if data == [DIGITS]:
        name = preset or QUICKSTART
        return Proposal(_preset_file(name).read_text(encoding="utf-8"), old, name, None)
    home = load_settings().home
    limits = load_params(_preset_file(preset or QUICKSTART)).ingest
    found = survey(_sources(data, limits, home), home)
    _check_labels(labels, found)
    name = preset or ("small" if found.long_side <= _SMALL_SIDE else "photo")
    path = _preset_file(name)
    changes = recommend(found, read_yaml(path))
    text = _with_sources(path.read_text(encoding="utf-8"), found.ingest)
    text = _header(found, name) + _changed(text, changes)
    check_params(YAML(typ="safe").load(text), f"preset {name} for {', '.join(data)}")
    return Proposal(text, old, name, found)


def as_given(data: str) -> str:
    """A path that stays the same in another directory; other words as they are."""
    if data == DIGITS or data.startswith(TORCHVISION) or "://" in data:
        return data
    return str(Path(data).expanduser().absolute())


def write(proposal: Proposal, force: bool) -> None:
    """Replace conf/params.yaml, atomically.

    Raises ParamsError when the file holds changes that git does not have, unless forced.
    """
    if not force and proposal.old and proposal.old != proposal.text and not _kept(proposal.old):
        raise ParamsError(
            f"{PARAMS_FILE} has changes that are not in git and would be lost; "
            "commit it first, or add --force"
        )
    write_text(PARAMS_FILE, proposal.text)


def show(proposal: Proposal, console: Console) -> None:
    """Print what the folder holds and what would change in conf/params.yaml."""
    if proposal.survey is not None:
        console.print(proposal.survey.ingest.origin, markup=False, soft_wrap=True)
        console.print(_classes(proposal.survey), _facts(proposal.survey, proposal.preset))
        for line in proposal.survey.broken[:5]:
            console.print(f"not an image: {line}", style="yellow", markup=False)
    old, new = proposal.old.splitlines(), proposal.text.splitlines()
    names = (str(PARAMS_FILE), f"{PARAMS_FILE} (new)")
    lines = list(difflib.unified_diff(old, new, *names, n=1, lineterm=""))
    for line in lines:
        console.print(line, style=_COLOURS.get(line[0], ""), markup=False, soft_wrap=True)
    if not lines:
        console.print(f"{PARAMS_FILE} is already so")


def _preset_file(name: str) -> Path:
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names)}"
        raise ParamsError(f"preset {name!r} is not in {PRESETS}; {hint}")
    return PRESETS / f"{name}.yaml"


def _check_labels(labels: list[str] | None, found: Survey) -> None:
    if labels is None:
        return
    missing = sorted(set(labels) - set(found.counts))
    unknown = sorted(set(found.counts) - set(labels))
    if missing or unknown:
        parts = [f"has no images of {', '.join(missing)}"] if missing else []
        parts += [f"has labels that are not declared: {', '.join(unknown)}"] if unknown else []
        raise DataError(f"{found.ingest.origin} {' and '.join(parts)}; mend --labels or the data")


def _sources(data: list[str], limits: Ingest, home: Path) -> Ingest:
    """The ingest section with a source for each of `data`, under a name of its own."""
    sources: dict[str, Source] = {}
    for one in data:
        source = detect(one, limits, home)
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(one).name.split(".")[0]).strip("-")[:50]
        name = name or "images"
        if name in sources:
            name = next(n for k in range(2, 99) if (n := f"{name}-{k}") not in sources)
        sources[name] = source.model_copy(update={"path": _portable(source.path)})
    return limits.model_copy(update={"sources": sources})


def _portable(path: str) -> str:
    """Relative inside the repository, so that it can be cloned elsewhere; else as given."""
    here = Path.cwd()
    return Path(path).relative_to(here).as_posix() if Path(path).is_relative_to(here) else path


def _with_sources(text: str, ingest: Ingest) -> str:
    """The preset with these sources in the place of its own."""
    before, mark, rest = text.partition("  sources:")
    comment, _, rest = rest.partition("\n")
    after = rest[rest.index("  max_pixels:") :]
    lines = []
    for name, source in ingest.sources.items():
        lines.append(f"    {name}:")
        values = source.model_dump(exclude_defaults=True)
        lines += [f"      {key}: {_written(value)}" for key, value in values.items()]
    return f"{before}{mark}{comment}\n" + "\n".join(lines) + f"\n{after}"


def _header(found: Survey, preset: str) -> str:
    return (
        f"# Every value of the pipeline, written by `visionloop init` on preset {preset} for\n"
        f"# {found.images:,} images in {len(found.counts)} classes. docs/configuration.md "
        "explains each key; addresses\n# and secrets come from the environment.\n\n"
    )


def _changed(text: str, changes: Changes) -> str:
    """The preset with values replaced line by line; a reason takes the place of the comment."""
    lines = text[text.index("\ningest:") + 1 :].splitlines()
    tree: Any = YAML().load("\n".join(lines))
    for dotted, (value, why) in changes.items():
        *parents, last = dotted.split(".")
        node = tree
        for part in parents:
            node = node[part]
        number, column = node.lc.value(last)
        lines[number] = _line(lines[number], column, value, why)
    return "\n".join(lines) + "\n"


def _line(line: str, column: int, value: object, why: str | None) -> str:
    comment = why or line[column:].partition(" #")[2].strip()
    start = line[:column] + _written(value)
    if not comment:
        return start
    return f"{start:<{_COMMENTS - 1}} # {comment}"


def _written(value: object) -> str:
    """A value as YAML on one line; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _kept(text: str) -> bool:
    """Whether the present file can be had again: it is committed as it is, or is a preset."""
    if any(path.read_text(encoding="utf-8") == text for path in PRESETS.glob("*.yaml")):
        return True
    if shutil.which("git") is None:
        return False
    command = ["git", "show", f"HEAD:./{PARAMS_FILE}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0 and done.stdout == text


def _classes(found: Survey) -> Table:
    table = Table()
    table.add_column("class")
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    for label, count in found.counts.items():
        table.add_row(label, f"{count:,}", f"{count / found.images:.1%}")
    table.add_row("all", f"{found.images:,}", "", style="bold")
    return table


def _facts(found: Survey, preset: str) -> Table:
    low, high = found.aspect_ratios
    counted = {
        "formats": found.formats,
        "colour modes": found.modes,
    }
    layouts = (f"{name} ({source.layout})" for name, source in found.ingest.sources.items())
    rows = {
        "sources": ", ".join(layouts),
        "sampled": f"{found.sampled:,} files, {len(found.broken)} of them no images",
        **{name: ", ".join(f"{k} {v:,}" for k, v in c.items()) for name, c in counted.items()},
        "width": f"{found.widths.min():.0f} to {found.widths.max():.0f} px",
        "height": f"{found.heights.min():.0f} to {found.heights.max():.0f} px",
        "width / height": f"{low:.2f} to {high:.2f} (5th to 95th percentile)",
        "brightness": f"{found.percentile('brightness', 5):.2f} to "
        f"{found.percentile('brightness', 95):.2f} (0 to 1)",
        "without a class": f"{found.outside:,} files, left out",
        "preset": preset,
    }
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, value)
    return table

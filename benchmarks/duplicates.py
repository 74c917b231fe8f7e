"""Recall and precision of the duplicate search: ours against imagededup's PHash and cleanvision.

python -m benchmarks.duplicates [--data CIFAR10.tar.gz | FOLDER] [--tiles TILES.tar.gz | FOLDER]

Exact copies and eight kinds of near-duplicates (`benchmarks/_alter.py`) are planted among
unaltered images: 1,000 and 2,000 among 10,000 of CIFAR-10's training images; 672 and 1,344
among the 1,344 magnetic tiles, which are too few for more. Every tool searches the same files
at its default settings, each peer in an environment of its own below .visionloop/benchmarks.
imagededup's CNN is left out: its weights would have to come from the network.

Recall of a kind: planted copies that a tool pairs or groups with their original. A reported
pair is right if both images were made from the same original, or from two that show the same
picture anyway (`benchmarks/_natural.py`: a tile photographed at several exposures; re-edited
pictures in CIFAR-10, each looked at). Precision: right pairs among all that are reported, the
pairs inside a group included, exact copies excluded. The JSON's recall is that over the
near-duplicates, and both are the worse of the two data sets.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks._alter import KINDS
from benchmarks._cifar import add_data_argument, class_folders, images_folder
from benchmarks._environments import interpreter
from benchmarks._natural import same_cifar_picture, same_tile

TILES = Path("../shared/datasets/magnetic-tile.tar.gz")
SEED = 2024

Pairs = set[tuple[str, str]]

IMAGEDEDUP = """
import json, sys
from imagededup.methods import PHash
if __name__ == "__main__":
    found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], recursive=True)
    json.dump([[one, other] for one, others in found.items() for other in others], sys.stdout)
"""
CLEANVISION = """
import itertools, json, os, sys
from cleanvision import Imagelab
if __name__ == "__main__":
    lab = Imagelab(data_path=sys.argv[1], verbose=False)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    sets = [s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info[kind]["sets"]]
    named = [[os.path.relpath(path, sys.argv[1]) for path in one] for one in sets]
    json.dump([pair for one in named for pair in itertools.combinations(one, 2)], sys.stdout)
"""
OURS = """
import itertools, json, sys
from pathlib import Path
if __name__ == "__main__":
    from tasks.data.clean import clean
    from tasks.data.ingest import ingest
    from tasks.data.sources.folders import find_files
    from tasks.params import load_params
    params = load_params()
    found = find_files(Path(sys.argv[1]))
    rows = ingest("images", found, params.ingest.max_pixels, 2).to_pandas()
    table = clean(rows, params.clean).table
    table["path"] = table["path"].str.removeprefix("images/")  # the source's name
    groups = [group["path"].tolist() for _, group in table.groupby("group")]
    json.dump([pair for one in groups for pair in itertools.combinations(one, 2)], sys.stdout)
"""


class Planted(NamedTuple):
    """File name → the file it was made from, and the kind ("original", "exact", or of KINDS)."""

    origin: dict[str, str]
    kind: dict[str, str]


class Score(NamedTuple):
    """Recall by kind and over all near-duplicates ("near"); precision among `pairs`."""

    recall: dict[str, float]
    precision: float
    pairs: int
    wrong: list[tuple[str, str]]


def main() -> None:
    arguments = _arguments()
    results: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cifar = sorted(class_folders(arguments.data, scratch / "cifar").glob("*/*.jpg"))
        tiles = sorted(images_folder(arguments.tiles, scratch / "tiles").glob("*/*.jpg"))
        for title, files, count, same in (
            ("CIFAR-10", cifar[::5], 2000, same_cifar_picture),
            ("magnetic tiles", tiles, 1344, same_tile),
        ):
            folder = scratch / title
            planted = plant(files, folder, count // 2, count, arguments.seed)
            results[title] = _compare(folder, planted, same)
            _print(title, results[title])
            if arguments.keep:
                _keep(folder, results[title], arguments.keep / title)
    _report(results)


def plant(files: list[Path], folder: Path, exact: int, near: int, seed: int) -> Planted:
    """Copy the files to folder/<class>, with planted copies of some under names that sort apart."""
    random = np.random.default_rng(seed)
    planted = Planted({}, {})
    names = [f"{file.parent.name}/{file.name}" for file in files]
    for file, name in zip(files, names, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        planted.origin[name], planted.kind[name] = name, "original"
    for kind, count in {"exact": exact, **dict.fromkeys(KINDS, near // len(KINDS))}.items():
        for index in random.choice(len(files), count, replace=False):
            name = f"{files[index].parent.name}/{kind}_{files[index].name}"
            _alter(files[index], folder / name, kind, random)
            planted.origin[name], planted.kind[name] = names[index], kind
    return planted


def _alter(file: Path, target: Path, kind: str, random: np.random.Generator) -> None:
    if kind == "exact":
        shutil.copy(file, target)
        return
    with Image.open(file) as image:
        image.load()
        altered, quality = KINDS[kind](image, random)
        altered.save(target, quality=quality)


def _compare(folder: Path, planted: Planted, same: Callable[[str, str], bool]) -> dict[str, Score]:
    tools = {
        "ours": (sys.executable, OURS),
        "imagededup PHash": (str(interpreter("imagededup", "imagededup")), IMAGEDEDUP),
        "cleanvision": (str(interpreter("cleanvision", "cleanvision")), CLEANVISION),
    }
    return {
        name: _score(_pairs(python, script, folder), planted, same)
        for name, (python, script) in tools.items()
    }


def _pairs(python: str, script: str, folder: Path) -> Pairs:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        command = [python, file.name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {python} failed\n{done.stderr[-2000:]}")
    found: Iterable[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return {(min(one, other), max(one, other)) for one, other in found}


def _score(pairs: Pairs, planted: Planted, same: Callable[[str, str], bool]) -> Score:
    origin, kind = planted
    hits = {
        copy: (min(copy, origin[copy]), max(copy, origin[copy])) in pairs
        for copy, its in kind.items()
        if its != "original"
    }
    recall = {
        one: float(np.mean([hit for copy, hit in hits.items() if kind[copy] == one]))
        for one in ("exact", *KINDS)
    }
    recall["near"] = float(np.mean([hit for copy, hit in hits.items() if kind[copy] != "exact"]))
    # an exact copy pairs as its original does: counted once
    judged = [pair for pair in pairs if "exact" not in (kind[pair[0]], kind[pair[1]])]
    wrong = [
        (one, other)
        for one, other in judged
        if origin[one] != origin[other] and not same(origin[one], origin[other])
    ]
    return Score(recall, 1 - len(wrong) / max(1, len(judged)), len(judged), sorted(wrong))


def _print(title: str, scores: dict[str, Score]) -> None:
    print(f"\n{title:28}" + "".join(f"{name:>18}" for name in scores))
    for kind in ("exact", *KINDS, "near"):
        values = "".join(f"{score.recall[kind]:18.3f}" for score in scores.values())
        print(f"{'recall, ' + kind:28}{values}")
    print(f"{'precision':28}" + "".join(f"{s.precision:18.4f}" for s in scores.values()))
    print(f"{'pairs reported':28}" + "".join(f"{s.pairs:18,}" for s in scores.values()))


def _keep(folder: Path, scores: dict[str, Score], target: Path) -> None:
    """The wrong pairs of each tool side by side, to be looked at."""
    for name, score in scores.items():
        (target / name).mkdir(parents=True, exist_ok=True)
        for number, pair in enumerate(itertools.islice(score.wrong, 500)):
            page = Image.new("RGB", (400, 200))
            for column, path in enumerate(pair):
                with Image.open(folder / path) as image:
                    page.paste(image.convert("RGB").resize((198, 198)), (200 * column, 0))
            page.save(target / name / f"{number:03}.png")
        (target / name / "pairs.json").write_text(json.dumps(score.wrong, indent=0))


def _report(results: dict[str, dict[str, Score]]) -> None:
    """The JSON line: the worse of the two data sets; ours and peer are F1 scores."""

    def worse(tool: str, value: Callable[[Score], float]) -> float:
        return min(value(scores[tool]) for scores in results.values())

    tools = list(next(iter(results.values())))
    f1 = {tool: worse(tool, _f1) for tool in tools}
    peer = max(value for tool, value in f1.items() if tool != "ours")
    line = {
        "benchmark": "duplicates",
        "ours": f1["ours"],
        "peer": peer,
        "ratio": f1["ours"] / peer,
        "recall": worse("ours", lambda score: score.recall["near"]),
        "precision": worse("ours", lambda score: score.precision),
    }
    print()
    print(json.dumps({key: v if isinstance(v, str) else round(v, 4) for key, v in line.items()}))


def _f1(score: Score) -> float:
    recall, precision = score.recall["near"], score.precision
    return 2 * recall * precision / max(1e-9, recall + precision)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--tiles", type=Path, default=TILES, help="archive or folder")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep", type=Path, help="folder for the wrong pairs of each tool")
    return parser.parse_args()


if __name__ == "__main__":
    main()

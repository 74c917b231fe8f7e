"""Folders of images to parameters and shards, through our own steps."""

from pathlib import Path

from ruamel.yaml import YAML

from flows.init import propose
from tasks.bundle import InputContract
from tasks.data.clean import clean
from tasks.data.digits import write_digits
from tasks.data.ingest import ingest
from tasks.data.prepare import prepare
from tasks.data.shards import Shards, open_shards
from tasks.data.sources.folders import find_files
from tasks.data.sources.found import Found
from tasks.data.split import assign
from tasks.params import check_params, load_params
from tasks.schema import Params


def shards_of(found: list[Found], root: Path, params: Params, target: Path) -> Shards:
    """The files found in `root` ingested, cleaned, split and prepared into `target`."""
    manifest = ingest("images", found, params.ingest.max_pixels).to_pandas()
    cleaned = clean(manifest, params.clean)
    splits = assign(cleaned.table, cleaned.pairs, params.split)
    contract = InputContract(
        size=params.prepare.size,
        resize=params.prepare.resize,
        max_pixels=params.ingest.max_pixels,
    )
    prepare(splits, {"images": root}, contract, target)
    return open_shards(target)


def proposed(images: Path) -> Params:
    """The parameters that `visionloop init` writes for a folder of images."""
    return check_params(YAML(typ="safe").load(propose([str(images)], None, None).text))


def digits_shards(target: Path) -> Shards:
    """scikit-learn's digits by the settings of conf/params.yaml."""
    raw = target.with_name("digits")
    write_digits(raw)
    return shards_of(find_files(raw), raw, load_params(), target)

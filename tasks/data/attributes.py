"""What is known of an image beside its pixels: the attributes that its test results are cut by.

Takes rows of the manifest, gives a column an attribute: those that every image has
(`tasks.schema.ATTRIBUTES`), then the metadata of its source, each column under its own name.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.tables import CLEANED, read_table
from tasks.errors import DataError
from tasks.schema import ATTRIBUTES

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {"class": "label", "group": "given_group"}  # others are called alike in the manifest
_READ = ["path", "metadata", *(_COLUMNS.get(n, n) for n in ATTRIBUTES if n != "megapixels")]


def attributes(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The attributes of rows of the manifest, in their order; null where one is missing.

    Metadata are text. A column of them that is called like one of ATTRIBUTES is `metadata.NAME`.
    """
    import pandas as pd

    megapixels = rows["width"] * rows["height"] / 1e6
    table = rows.assign(megapixels=megapixels)
    own = {name: table[_COLUMNS.get(name, name)].to_numpy() for name in ATTRIBUTES}
    given = [json.loads(text) if isinstance(text, str) else {} for text in rows["metadata"]]
    names = sorted({name for values in given for name in values})
    metadata = {
        f"metadata.{name}" if name in ATTRIBUTES else name: [_text(one.get(name)) for one in given]
        for name in names
    }
    return pd.DataFrame(own | metadata)


def read_attributes(paths: Sequence[str], source: Path = CLEANED) -> "pd.DataFrame":
    """The attributes of the images of these manifest paths, in their order; raises DataError."""
    table = read_table(source, "clean", _READ).set_index("path")
    missing = [path for path in paths if path not in table.index]
    if missing:
        raise DataError(
            f"{source} has no row of {len(missing)} images of the shards, such as {missing[0]!r}: "
            "they were not made from it; run `dvc repro prepare`"
        )
    return attributes(table.loc[list(paths)])


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)

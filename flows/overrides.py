"""KEY=VALUE words of the command line as dotted overrides of conf/params.yaml."""

from collections.abc import Iterable

from tasks.errors import ParamsError


def parse_overrides(words: Iterable[str]) -> dict[str, object]:
    """["train.lr=0.01"] → {"train.lr": 0.01}; values are YAML.

    Raises ParamsError for a word that is not KEY=VALUE, or a value that is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    overrides: dict[str, object] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise ParamsError(f"--set {word!r} is not KEY=VALUE, as in --set train.lr=0.01")
        try:
            overrides[key.strip()] = YAML(typ="safe").load(text)
        except YAMLError:
            raise ParamsError(f"--set {word!r}: {text!r} is not a YAML value") from None
    return overrides

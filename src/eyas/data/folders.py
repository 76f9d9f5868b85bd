"""Splits of a local folder: one that datasets saved, or a copy of a dataset's repository."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from eyas.data.readers.arrow_files import names_of_features
from eyas.errors import DataError
from eyas.files import read_json
from eyas.recipe.source import FILE_ENDINGS, Source, ending_of

if TYPE_CHECKING:
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

READ_OF_A_CONFIGURATION = {"data_files", "data_dir", "default", "features", "version", "description"}


@dataclass(frozen=True)
class Folder:
    """Files of one split in reading order, and the class names that the folder's README gives its columns."""

    files: Sequence[Path]
    class_names: Mapping[str, list[str]] = field(default_factory=dict)


def split_of_folder(folder: Path, source: Source) -> Folder:
    """Return the split of a folder that a source names. Raises DataError, which lists the splits that exist."""
    if (folder / "dataset_dict.json").is_file():
        splits = _read_json(folder / "dataset_dict.json").get("splits", [])
        _refuse_absent(folder, "split", source.split, splits)
        return Folder(_saved_files(folder / source.split, source))
    if (folder / "state.json").is_file():
        _refuse_absent(folder, "split", source.split, [_read_json(folder / "state.json").get("_split") or "train"])
        return Folder(_saved_files(folder, source))
    return _repository_split(folder, source)


def _saved_files(folder: Path, source: Source) -> list[Path]:
    """Return the files that `save_to_disk` of datasets lists in its state."""
    if source.name is not None:
        raise DataError(f"{folder}: a saved dataset has no configurations; remove `name: {source.name}`")
    names = [part["filename"] for part in _read_json(folder / "state.json")["_data_files"]]
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise DataError(f"{folder / 'state.json'}: names {outside[0]!r}, which is not a file of this folder")
    return [folder / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}; save the dataset again") from error


def _repository_split(folder: Path, source: Source) -> Folder:
    """Return the files of a split by the rules of datasets: those of the README, else of folder and file names."""
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns

    try:
        card, configurations = _described(folder)
        chosen, settings = _configuration(folder, configurations, source.name)
        base = folder.resolve() / settings.get("data_dir", "")
        named = "data_files" in settings
        patterns = sanitize_patterns(settings["data_files"]) if named else get_data_patterns(str(base))
        resolved = DataFilesDict.from_patterns(patterns, base_path=str(base))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        if not any(ending_of(file.name) for file in folder.rglob("*")):
            raise DataError(f"{folder}: holds no file that ends in {', '.join(FILE_ENDINGS)}") from None
        raise DataError(f"{folder}: its splits cannot be found: {error}") from error
    splits = {str(split): _readable(files) for split, files in resolved.items()}
    splits = {split: files for split, files in splits.items() if files}
    if not splits:
        raise DataError(f"{folder}: holds no file that ends in {', '.join(FILE_ENDINGS)}")
    _refuse_absent(folder, "split", source.split, splits)
    if not named:
        _refuse_left_out(folder, base, splits)
    features = settings.get("features") or _features(card, chosen)
    return Folder(splits[source.split], names_of_features(features))


def _described(folder: Path) -> "tuple[DatasetCardData, MetadataConfigs]":
    """Return the metadata of a folder's README, and the configurations in it."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    readme = folder / "README.md"
    card = DatasetCard.load(readme).data if readme.is_file() else DatasetCardData()
    return card, MetadataConfigs.from_dataset_card_data(card)


def _configuration(folder: Path, configurations: "MetadataConfigs", name: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the settings of the configuration that a source names, or of the default one."""
    if not configurations and name is None:
        return "default", {}
    chosen = name or configurations.get_default_config_name()
    if chosen is None:
        raise DataError(f"{folder}: has the configurations {', '.join(configurations)}; set `name` to one of them")
    _refuse_absent(folder, "configuration", chosen, configurations)
    settings = configurations[chosen]
    unread = settings.keys() - READ_OF_A_CONFIGURATION
    if unread:
        raise DataError(f"{folder / 'README.md'}: configuration '{chosen}' sets {', '.join(sorted(unread))}, which "
                        "eyas does not read; name its files in the recipe, with their settings")  # fmt: skip
    return chosen, settings


def _features(card: "DatasetCardData", configuration: str) -> Any:
    from datasets.info import DatasetInfosDict

    infos = DatasetInfosDict.from_dataset_card_data(card)
    info = infos.get(configuration) or (next(iter(infos.values())) if len(infos) == 1 else None)
    return None if info is None else info.features


def _readable(files: Sequence[str]) -> list[Path]:
    return [Path(file) for file in sorted(files) if ending_of(file)]


def _refuse_absent(folder: Path, kind: str, name: str, known: "Mapping[str, Any] | Sequence[str]") -> None:
    if name not in known:
        raise DataError(f"{folder}: has no {kind} '{name}'; it has: {', '.join(known) or 'none'}")


def _refuse_left_out(folder: Path, base: Path, splits: Mapping[str, Sequence[Path]]) -> None:
    """Raise DataError for a file of rows whose name gives it no split, while others' names do."""
    known = {file for files in splits.values() for file in files}
    rows = (file for file in sorted(base.rglob("*")) if ending_of(file.name) and file.is_file())
    left_out = [file for file in rows if file not in known and not _is_hidden(file.relative_to(base))]
    if left_out:
        raise DataError(
            f"{folder}: {left_out[0].relative_to(base)} belongs to none of its splits ({', '.join(splits)}); name the "
            "files in the recipe, for example with a pattern"
        )


def _is_hidden(file: Path) -> bool:
    from datasets.data_files import FILES_TO_IGNORE

    return file.name in FILES_TO_IGNORE or any(part.startswith((".", "__")) for part in file.parts)

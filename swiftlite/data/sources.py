"""What ``--dataset`` names: files, named data sets and repositories on the hubs."""

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from swiftlite.data.files import PARQUET, SUFFIXES
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.hub import asset_path, dataset_path
from swiftlite.registry.datasets import DATASETS, DatasetInfo

HUBS = {'HF': 'Hugging Face', 'MS': 'ModelScope'}
ID = r'[\w-][\w.-]*/[\w.-]+'
# parts of a name that say which rows a file of a repository holds
SPLITS = {'train': ('train',), 'test': ('test',), 'validation': ('validation', 'valid', 'val', 'dev', 'eval')}
NOT_ROWS = ('dataset_infos.json', 'dataset_info.json', 'configuration.json', 'config.json', 'state.json')


@dataclass(frozen=True)
class Source:
    """One of ``[HF::|MS::]name|id|path[:subset[/subset]][#N]``."""

    name: str
    info: DatasetInfo
    count: int | None = None  # rows to draw
    subsets: tuple[str, ...] = ()
    hub: str | None = None  # 'Hugging Face' or 'ModelScope'; None: the one in use

    def files(self) -> list[Path]:
        """The files with its rows, downloaded where need be. SwiftliteError where there are none."""
        if self.info.asset is not None:
            return [Path(asset_path(self.info.asset))]
        if self.info.path is not None and Path(self.info.path).is_file():
            return [Path(self.info.path)]
        patterns = [self.info.subsets[name] for name in self.subsets if name in self.info.subsets]
        if self.info.path is not None:
            folder = Path(self.info.path)
        else:
            folder = Path(dataset_path(self.info, self.hub, patterns or None))
        return _chosen(self.name, folder, self.info, self.subsets)


def parse(spec: str) -> Source:
    """The source that a value of ``--dataset`` means.

    Raises:
        UsageError: a name or file that does not exist, or a count that is none.
    """
    text, count = _count(spec)
    prefix, mark, rest = text.partition('::')
    if mark and prefix.upper() not in HUBS:
        raise UsageError(f"the data set '{spec}': valid before :: are HF (Hugging Face) and MS (ModelScope)")
    hub, text = (HUBS[prefix.upper()], rest) if mark else (None, text)
    path = Path(os.path.expanduser(text))
    if hub is None and os.path.isfile(path):
        return Source(text, DatasetInfo(text, path=str(_readable(path, text))), count)
    name, mark, subsets = text.partition(':')
    parts = tuple(part for part in subsets.split('/') if part)
    if hub is None or name in DATASETS:
        found = DATASETS.get(name)
        if found is not None:
            return _named(found, count, parts, hub)
    if re.fullmatch(ID, name) and (hub is not None or not _looks_like_file(name)):
        return Source(name, DatasetInfo(name, ms_id=name, hf_id=name), count, parts, hub)
    if hub is not None:
        raise UsageError(f"the data set '{spec}': '{name}' is no id of a data set on {hub} (owner/name)")
    raise UsageError(_unknown(text))


def _count(spec: str) -> tuple[str, int | None]:
    source, mark, number = spec.rpartition('#')
    if not mark or os.path.isfile(os.path.expanduser(spec)):
        return spec, None
    if not re.fullmatch(r'[0-9]{1,8}', number) or int(number) == 0:
        raise UsageError(
            f"the data set '{source}': a positive number of rows is expected after #, of at most 8 digits, "
            f"not '{number:.20}'"
        )
    return source, int(number)


def _named(info: DatasetInfo, count: int | None, subsets: tuple[str, ...], hub: str | None) -> Source:
    if hub is not None and (info.hf_id if hub == 'Hugging Face' else info.ms_id) is None:
        raise UsageError(f"the data set '{info.name}' is not on {hub}: leave out the prefix")
    for name in subsets:
        if info.subsets and name not in info.subsets:
            raise UsageError(
                f"the data set '{info.name}' has no subset '{name}': valid are {', '.join(info.subsets)}"
                f'{nearest(name, info.subsets)}'
            )
    subsets = subsets or ((info.subset,) if info.subset else ())
    return Source(info.name, info, count, subsets, hub)


def _readable(path: Path, given: str) -> Path:
    if path.suffix.lower() not in (*SUFFIXES, PARQUET):
        raise UsageError(f"the data set '{given}' is no {', '.join(SUFFIXES)} file")
    return path


def _looks_like_file(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in (*SUFFIXES, PARQUET) or os.path.isdir(path.parent)


def _unknown(source: str) -> str:
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return f"the data set '{source}' is a folder: name the files in it"
    folder = path.parent if os.path.isdir(path.parent) else Path()
    options = [*DATASETS, *(str(file) for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)]
    listed = f"one of the {len(DATASETS)} names that 'swiftlite models --kind datasets' lists"
    return f"the data set '{source}' is neither a file nor {listed}{nearest(source, options)}"


def _chosen(name: str, folder: Path, info: DatasetInfo, subsets: tuple[str, ...]) -> list[Path]:
    """The files of a repository that hold the rows of these subsets, of the split that is trained on."""
    found = {
        str(file.relative_to(folder)): file
        for file in sorted(folder.rglob('*'))
        if file.suffix.lower() in (*SUFFIXES, PARQUET) and file.name not in NOT_ROWS and file.is_file()
    }
    if not found:
        raise SwiftliteError(f"the data set '{name}' has no {', '.join(SUFFIXES)} or {PARQUET} file in {folder}")
    chosen: dict[str, Path] = {}
    for subset in subsets:
        pattern = info.subsets.get(subset)
        part = {k: v for k, v in found.items() if (fnmatch(k, pattern) if pattern else _is_of(k, subset))}
        if not part and subset != 'default':
            shown = ', '.join(list(found)[:5])
            raise SwiftliteError(f"the data set '{name}' has no files of a subset '{subset}', only {shown}")
        chosen |= part
    chosen = chosen or found
    others = {word for split, words in SPLITS.items() if split != info.split for word in words}
    of_split = {k: v for k, v in chosen.items() if _words(k) & {*SPLITS.get(info.split, ()), info.split}}
    rest = {k: v for k, v in chosen.items() if not _words(k) & others}
    chosen = of_split or rest or chosen
    plain = {k: v for k, v in chosen.items() if v.suffix.lower() != PARQUET}
    return list((plain or chosen).values())


def _is_of(file: str, subset: str) -> bool:
    path = Path(file)
    return subset in path.parts[:-1] or path.stem == subset or path.stem.startswith((f'{subset}-', f'{subset}_'))


def _words(file: str) -> set[str]:
    return set(re.split(r'[^a-z0-9]+', file.lower()))

"""Where the files of a model or a data set are: local folders, the embedded assets, ModelScope or Hugging Face."""

import importlib.util
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftlite.errors import SwiftliteError, nearest
from swiftlite.registry.datasets import DatasetInfo
from swiftlite.registry.models import MODELS, ModelInfo
from swiftlite.registry.resolve import find_model

ASSETS = Path(__file__).parent / 'assets'
FILES = ['*.safetensors', '*.json', '*.jinja', '*.tiktoken', '*.model', '*.txt']  # never code, never pickles
NOT_READ = ['consolidated*', 'original/*', 'onnx/*', '*/consolidated*']  # the same weights in other forms
DATA_FILES = ['*.jsonl', '*.json', '*.csv', '*.parquet']
HF, MODELSCOPE = 'Hugging Face', 'ModelScope'
OFFLINE = {HF: ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'), MODELSCOPE: ('MODELSCOPE_OFFLINE', 'HF_HUB_OFFLINE')}
log = logging.getLogger(__name__)


def local_path(source: str, revision: str | None = None, *, use_hf: bool | None = None) -> str:
    """The folder that holds a model's files, downloaded first where need be.

    `source` is a model type, an existing folder or a hub id. The hub is ModelScope where the ``hub`` extra is
    installed, else Hugging Face; ``USE_HF=1`` (or `use_hf`) picks Hugging Face. The hubs' own clients do the rest:
    they keep files under MODELSCOPE_CACHE and HF_HOME, go on with what was broken off, and stay off the network with
    HF_HUB_OFFLINE=1. Raises SwiftliteError, one sentence, for a name that is none of these, for every failure of the
    download, and where only a part of the files is here.
    """
    info = find_model(source)
    if info is not None and info.asset is not None:
        return asset_path(info.asset)
    if info is not None and info.path is not None:
        return info.path
    if info is None and os.path.isdir(source):
        return source
    if info is None and re.fullmatch(r'[\w-][\w.-]*/[\w.-]+', source) is None:
        raise SwiftliteError(f"'{source}' is no folder, model type or hub id{nearest(source, MODELS)}")
    hub, repo = _choose_hub(source, info, use_hf)
    path = _download(hub, repo, revision, FILES, NOT_READ)
    _check_whole(path, repo)
    return path


def dataset_path(info: DatasetInfo, hub: str | None = None, patterns: Sequence[str] | None = None) -> str:
    """The folder with the data files of a repository; `patterns` for some of them. `hub`: HF, MODELSCOPE or None."""
    if hub is None and bool(info.ms_id) != bool(info.hf_id):  # it is on one of them alone
        hub = MODELSCOPE if info.ms_id else HF
    if hub is None:
        hub = _choose_hub(info.name, None, None)[0]
    repo = (info.ms_id or info.hf_id) if hub == MODELSCOPE else (info.hf_id or info.ms_id)
    if hub == MODELSCOPE and importlib.util.find_spec('modelscope_hub') is None:
        raise SwiftliteError(f"'{repo}' is looked up on ModelScope, which needs pip install 'swiftlite[hub]'")
    assert repo is not None  # a row without files is no data set
    return _download(hub, repo, info.revision, list(patterns or DATA_FILES), [], dataset=True)


def asset_path(name: str) -> str:
    """A file or folder under ``swiftlite/assets``."""
    path = ASSETS / name
    if not path.exists():
        raise SwiftliteError(f"'{path}' is missing: this installation of swiftlite is incomplete")
    return str(path)


def _choose_hub(source: str, info: ModelInfo | None, use_hf: bool | None) -> tuple[str, str]:
    """(hub, repository id)."""
    asked = _on('USE_HF') if use_hf is None else use_hf
    if not asked and importlib.util.find_spec('modelscope_hub') is not None:
        return MODELSCOPE, (info and info.ms_id) or source
    if not asked:
        log.warning("'%s' is looked up on Hugging Face: ModelScope needs pip install 'swiftlite[hub]'", source)
    return HF, (info and info.hf_id) or source


def _download(
    hub: str, repo: str, revision: str | None, files: list[str], others: list[str], dataset: bool = False
) -> str:
    options: dict[str, Any] = {'revision': revision, 'allow_patterns': files, 'ignore_patterns': others or None}
    options['repo_type'] = 'dataset' if dataset else 'model'
    offline = next((name for name in OFFLINE[hub] if _on(name)), None)
    if offline:
        options['local_files_only'] = True
    try:
        if hub == MODELSCOPE:
            from modelscope_hub.compat.snapshot_download import snapshot_download as from_modelscope

            return from_modelscope(repo, **options)
        from huggingface_hub import snapshot_download

        return snapshot_download(repo, **options)
    except Exception as error:  # each hub has its own dozens of types; all mean that the files are not here
        advice = _advice(hub, dataset)
        raise SwiftliteError(f"'{repo}' cannot be fetched from {hub} ({_reason(error, offline)}): {advice}") from error


def _reason(error: Exception, offline: str | None) -> str:
    kinds = [type(each).__name__ for each in _causes(error)]
    if 'IncompleteSnapshotError' in kinds:
        why = f'{offline} is set' if offline else 'the network does not reach it'
        return f'{why} and only a part of its files is in the cache'
    if offline:
        return f'{offline} is set and it is not in the cache'
    said = ' '.join(str(error).split())
    if 'GatedRepoError' in kinds:
        return "its owner lets in who asked: accept the licence on its page and log in with 'hf auth login'"
    if 'RevisionNotFoundError' in kinds:
        return 'it has no such revision'
    if 'RepositoryNotFoundError' in kinds or 'NotExistError' in kinds:
        return 'there is no such repository, or it is private'
    if 'No space left' in said:
        return 'the disk is full'
    network = ('ConnectError', 'ConnectionError', 'ConnectTimeout', 'ReadTimeout', 'NewConnectionError', 'gaierror')
    if any(kind in network for kind in kinds) or 'check your connection' in said or 'Max retries' in said:
        return 'the network does not reach it, and it is not in the cache'
    lines = [line.strip().rstrip('.') for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _advice(hub: str, dataset: bool) -> str:
    if hub == MODELSCOPE:
        other = 'set USE_HF=1 for Hugging Face'
    elif importlib.util.find_spec('modelscope_hub') is not None:
        other = 'unset USE_HF for ModelScope'
    else:
        other = "pip install 'swiftlite[hub]' for ModelScope"
    return f'give a local {"file" if dataset else "folder"}, or {other}'


def _check_whole(path: str, repo: str) -> None:
    """Refuse a folder in the cache that a broken-off download left without some of its files."""
    folder = Path(path)
    missing = [] if (folder / 'config.json').is_file() else ['config.json']
    index = folder / 'model.safetensors.index.json'
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding='utf-8'))['weight_map'].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise SwiftliteError(f'{index} is damaged: remove it, and it is fetched again') from None
        missing += sorted(name for name in names if not (folder / name).is_file())
    elif not any(folder.glob('*.safetensors')):
        missing.append('any safetensors file')
    if missing:
        more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise SwiftliteError(
            f"'{repo}' in {path} lacks {missing[0]}{more}: either the download was broken off, and goes on with the "
            'network there, or it is no checkpoint that swiftlite reads'
        )


def _on(variable: str) -> bool:
    return os.environ.get(variable, '').lower() in ('1', 'true', 'yes', 'on')

"""Where a model's files are: a local folder, the embedded assets, ModelScope or Hugging Face."""

import importlib.util
import logging
import os
import re
from pathlib import Path

from swiftlite.errors import SwiftliteError, nearest
from swiftlite.registry.models import MODELS, ModelInfo
from swiftlite.registry.resolve import find_model

ASSETS = Path(__file__).parent / 'assets'
FILES = ['*.safetensors', '*.json', '*.jinja', '*.tiktoken', '*.model', '*.txt']  # never code, never pickles
log = logging.getLogger(__name__)


def local_path(source: str, revision: str | None = None, *, use_hf: bool | None = None) -> str:
    """The folder that holds a model's files, downloaded first where need be.

    `source` is a model type, an existing folder or a hub id. The hub is ModelScope where the ``hub`` extra is
    installed, else Hugging Face; ``USE_HF=1`` (or `use_hf`) picks Hugging Face. Raises SwiftliteError, one sentence,
    for a name that is none of these and for every failure of the download.
    """
    info = find_model(source)
    if info is not None and info.asset is not None:
        return asset_path(info.asset)
    if info is None and Path(source).is_dir():
        return source
    if info is None and re.fullmatch(r'[\w-][\w.-]*/[\w.-]+', source) is None:
        raise SwiftliteError(f"'{source}' is no folder, model type or hub id{nearest(source, MODELS)}")
    return _download(*_choose_hub(source, info, use_hf), revision)


def asset_path(name: str) -> str:
    """A file or folder under ``swiftlite/assets``."""
    path = ASSETS / name
    if not path.exists():
        raise SwiftliteError(f"'{path}' is missing: this installation of swiftlite is incomplete")
    return str(path)


def _choose_hub(source: str, info: ModelInfo | None, use_hf: bool | None) -> tuple[str, str]:
    """(hub, repository id), where hub is 'Hugging Face' or 'ModelScope'."""
    asked = os.environ.get('USE_HF', '').lower() in ('1', 'true') if use_hf is None else use_hf
    if not asked and importlib.util.find_spec('modelscope_hub') is not None:
        return 'ModelScope', (info and info.ms_id) or source
    if not asked:
        log.warning("'%s' is looked up on Hugging Face: ModelScope needs pip install 'swiftlite[hub]'", source)
    return 'Hugging Face', (info and info.hf_id) or source


def _download(hub: str, repo: str, revision: str | None) -> str:
    try:
        if hub == 'ModelScope':
            from modelscope_hub.compat.snapshot_download import snapshot_download as from_modelscope

            return from_modelscope(repo, revision=revision, allow_patterns=FILES)
        from huggingface_hub import snapshot_download

        return snapshot_download(repo, revision=revision, allow_patterns=FILES)
    except Exception as error:  # each hub has its own dozens of types; all mean that the files are not here
        lines = [line.strip().rstrip('.') for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        if hub == 'ModelScope':
            other = 'set USE_HF=1 for Hugging Face'
        elif importlib.util.find_spec('modelscope_hub') is not None:
            other = 'unset USE_HF for ModelScope'
        else:
            other = "pip install 'swiftlite[hub]' for ModelScope"
        raise SwiftliteError(
            f"'{repo}' cannot be fetched from {hub} ({reason}): give a local folder, or {other}"
        ) from error

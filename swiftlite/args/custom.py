"""``--custom_register_path`` and ``--custom_dataset_info``: rows of one's own, read before names are looked up."""

import json
import os
from pathlib import Path
from typing import Any

from swiftlite.errors import UsageError
from swiftlite.registry.dataset_info import register_datasets
from swiftlite.registry.register import EXAMPLE, register


def register_file(file: str) -> str:
    """Add the rows of a YAML or JSON file to the tables (see `swiftlite.registry.register`); its absolute path.

    Raises:
        UsageError: one sentence for a file that cannot be read or a row that is wrong. Python files are not run.
    """
    path = Path(os.path.expanduser(file)).resolve()
    if path.suffix == '.py':
        shown = '; '.join(EXAMPLE.replace('\n  - ', ' [').replace('}\n', '}]\n').splitlines())
        raise UsageError(
            f"--custom_register_path '{file}' is Python, and no code is loaded from outside: "
            f'write the rows as YAML ({shown})'
        )
    register(_content(path, f"--custom_register_path '{file}'"), f"--custom_register_path '{file}'", path.parent)
    return str(path)


def register_dataset_info(file: str) -> str:
    """Add the data sets of a ``dataset_info.json``, or of the folder with one; its absolute path.

    Raises:
        UsageError: as `register_file`; JSON text in place of a file is read, too.
    """
    if file.lstrip().startswith(('{', '[')):
        try:
            register_datasets(json.loads(file), '--custom_dataset_info', Path.cwd())
        except json.JSONDecodeError as error:
            raise UsageError(f'--custom_dataset_info is no JSON: {error}') from None
        return file
    path = Path(os.path.expanduser(file)).resolve()
    path = path / 'dataset_info.json' if path.is_dir() else path
    register_datasets(_content(path, f"--custom_dataset_info '{file}'"), f"--custom_dataset_info '{file}'", path.parent)
    return str(path)


def _content(path: Path, where: str) -> Any:
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise UsageError(f'{where} cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise UsageError(f'{where} is not UTF-8 text') from None
    try:
        if path.suffix.lower() == '.json':
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f'{where}, line {error.lineno} is not valid JSON: {error.msg}') from None
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f'{where} is no YAML: {" ".join(str(error).split())}') from None

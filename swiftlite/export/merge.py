"""`swiftlite export --merge_lora true`: base + adapter written as an ordinary checkpoint, without building a model."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from swiftlite.args.export import ExportArgs
from swiftlite.checkpoint import fingerprint, iter_tensors, load_tokenizer, raw_config, read_adapter, read_config
from swiftlite.checkpoint.adapter import Adapter, LoRAWeights
from swiftlite.checkpoint.config import read_json
from swiftlite.checkpoint.mappings import mapping_of
from swiftlite.checkpoint.native import write_config, write_json, write_shards
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.export.verify import verify
from swiftlite.hub import local_path
from swiftlite.registry.resolve import ModelSource, complete
from swiftlite.template import detect, get_template
from swiftlite.template.writer import chat_template

ARGS_FILE = 'sft_args.json'
TIED = ('model.embed_tokens.weight', 'lm_head.weight')


class Merge:
    """The merged tensors of a base, streamed; counts what the adapter changed.

    W + scaling * B @ A, its rows scaled for DoRA, is computed in fp32 and cast once to W's dtype. Tensors that were
    trained whole (modules_to_save) take the place of the base's.
    """

    def __init__(self, base: str, adapter: Adapter):
        self.base, self.adapter = base, adapter
        self.changed: list[str] = []
        self.unchanged: list[str] = []  # the delta is lost in rounding, or zero

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(native name, tensor) of every weight.

        Raises:
            SwiftliteError: an adapted module is not among the weights, or a sum is too large for the dtype.
        """
        pending, whole = self._pairs(), self._whole()
        for name, tensor in iter_tensors(self.base):
            weights = pending.pop(name.removesuffix('.weight'), None) if name.endswith('.weight') else None
            if weights is not None:
                tensor = self._cast(name, weights.merged(tensor), tensor)
            elif name in whole:
                tensor = self._cast(name, whole.pop(name), tensor)
            yield name, tensor
        if missing := [*pending, *whole]:
            raise SwiftliteError(f'the adapter changes {missing[0]}, which is not among the weights of {self.base}')

    def _pairs(self) -> dict[str, LoRAWeights]:
        """The adapter's modules; where the base's embeddings are tied, the same change of both is one."""
        pairs = dict(self.adapter.modules)
        found = [name for name in TIED if name.removesuffix('.weight') in pairs]
        if not read_config(self.base)['tie_word_embeddings'] or not found:
            return pairs
        embed, head = (pairs.get(name.removesuffix('.weight')) for name in TIED)
        if embed is None or head is None or not embed.same(head):
            raise SwiftliteError(
                f'the adapter changes {found[0]} alone, but embeddings and output layer of {self.base} are one tensor: '
                'serve it beside the base (swiftlite deploy --lora_modules)'
            )
        there = {name for name, _ in iter_tensors(self.base)}
        return {name: pair for name, pair in pairs.items() if f'{name}.weight' in there or f'{name}.weight' not in TIED}

    def _whole(self) -> dict[str, torch.Tensor]:
        """The tensors that replace the base's; where its embeddings are tied, one counts for both."""
        whole = dict(self.adapter.replaced)
        found = [name for name in TIED if name in whole]
        if not read_config(self.base)['tie_word_embeddings'] or not found:
            return whole
        if not self.adapter.config.get('ensure_weight_tying'):
            raise SwiftliteError(
                f'the adapter changes {found[0]} alone, but embeddings and output layer of {self.base} are one tensor'
            )
        there = {name for name, _ in iter_tensors(self.base) if name in TIED}
        tensor = whole[found[0]]
        return {name: each for name, each in whole.items() if name not in TIED} | dict.fromkeys(there, tensor)

    def _cast(self, name: str, merged: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """`merged` in the dtype of the base's `tensor`."""
        grown = name in TIED and merged.shape[1:] == tensor.shape[1:] and len(merged) > len(tensor)
        if merged.shape != tensor.shape and not grown:
            raise SwiftliteError(
                f'the adapter has {name} as {list(merged.shape)}, but the base model has {list(tensor.shape)}'
            )
        merged = merged.to(tensor.dtype)
        if not torch.isfinite(merged).all():
            raise SwiftliteError(f'{name} with the adapter is too large for {str(tensor.dtype).removeprefix("torch.")}')
        same = not grown and torch.equal(merged, tensor)
        (self.unchanged if same else self.changed).append(name)
        return merged


def run(args: ExportArgs) -> str:
    """Merge as `args` says; returns the folder written.

    Raises:
        UsageError: no adapter in --ckpt_dir, or the folder to write exists.
        SwiftliteError: the adapter belongs to another base, or changes nothing.
    """
    source = args.source()
    lora = source.adapter
    if lora is None:
        raise UsageError(f"--ckpt_dir '{args.ckpt_dir}' holds whole weights, no LoRA: there is nothing to merge")
    base = local_path(source.model_id_or_path, source.revision)
    source = complete(source, base)
    target = Path(args.output_dir or f'{str(args.ckpt_dir).rstrip("/")}-merged')
    check_target(target, args.overwrite, [base, lora])
    check_base(lora, source.ckpt_args.get('base_fingerprint'), base)
    adapter = read_adapter(lora, read_config(base), merging=True)
    with replaced(target) as folder:
        merge = Merge(base, adapter)
        write_shards(merge.tensors(), folder)
        if not merge.changed:
            raise SwiftliteError(f'the adapter in {lora} changes no weight: the merged model would be the base')
        write_companions(args, source, base, folder, adapter.vocab_size)
        if args.verify:
            print(verify(base, adapter, str(folder)), flush=True)
    adapted = len(merge.changed) + len(merge.unchanged)
    print(f'merged {len(merge.changed)} of {adapted} adapted weights into {target}', flush=True)
    if merge.unchanged:
        print(f'note: {len(merge.unchanged)} too small to change a weight, e.g. {merge.unchanged[0]}', flush=True)
    shown = shlex.quote(str(target))
    print(f'next:\n  swiftlite infer --ckpt_dir {shown}\n  swiftlite deploy --ckpt_dir {shown}', flush=True)
    return str(target)


def check_target(target: Path, overwrite: bool, needed: list[str]) -> None:
    """Refuse a folder that exists, unless it is a checkpoint to be replaced, and any that holds what is merged."""
    if any(Path(path).resolve().is_relative_to(target.resolve()) for path in needed):
        raise UsageError(f'{target} holds what is merged: give --output_dir for another folder')
    if not target.exists():
        return
    if not overwrite:
        raise UsageError(f'{target} exists: give --overwrite true to replace it, or --output_dir for another folder')
    if not (target / 'config.json').is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f'{target} is no checkpoint and is not replaced: give --output_dir for another folder')


def check_base(lora: str, recorded: str | None, base: str) -> None:
    """Refuse a base that is not the one the adapter was trained on; `recorded` is the fingerprint of that one."""
    if raw_config(base).get('quantization_config'):
        raise SwiftliteError(f'{base} is quantized: merge into the unquantized model, then quantize the result')
    if recorded is None:
        print(f'note: {lora} does not record its base; only names and shapes are checked', flush=True)
    elif recorded != fingerprint(base):
        raise SwiftliteError(f'the adapter in {lora} was trained on another model than {base}')


def write_companions(
    args: ExportArgs, source: ModelSource, base: str, folder: Path, vocab_size: int | None = None
) -> None:
    """Config, generation config, tokenizer with the chat template that was trained, and sft_args.json.

    vocab_size: rows of embeddings that were trained whole.
    """
    if mapping_of(raw_config(base)) is None:
        for name in ('config.json', 'generation_config.json'):
            if Path(base, name).is_file():
                shutil.copy(Path(base, name), folder)
    else:
        write_config(base, folder)
    grown = vocab_size is not None and vocab_size > read_config(base)['vocab_size']
    if grown:
        write_json(folder / 'config.json', {**read_json(folder / 'config.json'), 'vocab_size': vocab_size})
    added = grown or source.ckpt_args.get('new_special_tokens')
    own_tokenizer = added and source.adapter and (Path(source.adapter) / 'tokenizer_config.json').is_file()
    tokenizer = load_tokenizer(str(source.adapter) if own_tokenizer else base)
    template = args.template_type or source.template or detect(tokenizer)
    if template or args.chat_template or tokenizer.chat_template:
        used = get_template(template, tokenizer, **args.template_options())
        template = used.name
        if (own := chat_template(used)) is not None:
            tokenizer.chat_template = own
    tokenizer.save_pretrained(str(folder))
    saved: dict[str, Any] = {
        **source.ckpt_args,
        'sft_type': 'full',
        'template_type': template,
        'merged_from': source.adapter,
    }
    if args.chat_template is not None:
        saved['chat_template'] = args.chat_template
    if args.system is not None:
        saved['system'] = args.system
    if args.enable_thinking is not None:
        saved['enable_thinking'] = args.enable_thinking
    saved.setdefault('model_type', source.model_type)
    write_json(folder / ARGS_FILE, saved)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends well, and is removed when it does not."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent))
    except OSError as error:
        raise SwiftliteError(f'{target} cannot be written: {error.strerror}') from error
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f'.{target.name}-old-', dir=target.parent))
            target.rename(old / target.name)
            work.rename(target)
            shutil.rmtree(old)
        else:
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)

"""Tokenizers of checkpoints, without remote code. `qwen.tiktoken` is read natively."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from swiftlite.checkpoint.config import read_json
from swiftlite.errors import SwiftliteError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Qwen v1: the pattern splits numbers into single digits.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
QWEN_SPECIAL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', *(f'<|extra_{i}|>' for i in range(205)))


def load_tokenizer(path: str | Path) -> 'PreTrainedTokenizerBase':
    """The tokenizer of a checkpoint folder: tokenizer.json and friends through transformers, or `qwen.tiktoken`.

    Qwen v1 ids: the BPE ranks, then <|endoftext|> 151643, <|im_start|> 151644, <|im_end|> 151645, <|extra_0..204|>.

    Raises:
        SwiftliteError: no tokenizer files, or files that need code from the checkpoint to be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise SwiftliteError(f'{folder} is not a folder; a checkpoint folder with a tokenizer is needed')
    if (folder / 'tokenizer.json').is_file():
        return _fast(folder)
    if (folder / 'qwen.tiktoken').is_file():
        return _qwen(folder)
    settings = read_json(folder / 'tokenizer_config.json') if (folder / 'tokenizer_config.json').is_file() else {}
    if 'auto_map' in settings:
        raise SwiftliteError(
            f'the tokenizer of {folder} runs code of its own ({settings.get("tokenizer_class")}); none is run'
        )
    if not any((folder / name).is_file() for name in ('tokenizer.model', 'vocab.json', 'vocab.txt', 'spiece.model')):
        raise SwiftliteError(
            f'{folder} has no tokenizer: neither tokenizer.json nor tokenizer.model, vocab.json or qwen.tiktoken'
        )
    return _auto(folder)


def _auto(folder: Path) -> 'PreTrainedTokenizerBase':
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise SwiftliteError(f'the tokenizer of {folder} cannot be read: {str(error).splitlines()[0]}') from error


def _fast(folder: Path) -> 'PreTrainedTokenizerBase':
    settings = read_json(folder / 'tokenizer_config.json') if (folder / 'tokenizer_config.json').is_file() else {}
    if 'auto_map' not in settings and (folder / 'config.json').is_file():
        return _auto(folder)
    from transformers import PreTrainedTokenizerFast

    settings = {key: value for key, value in settings.items() if key not in ('auto_map', 'tokenizer_class')}
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / 'tokenizer.json'), **settings)
    except Exception as error:
        raise SwiftliteError(f'the tokenizer of {folder} cannot be read: {str(error).splitlines()[0]}') from error


def _qwen(folder: Path) -> 'PreTrainedTokenizerBase':
    from transformers import PreTrainedTokenizerFast

    settings = read_json(folder / 'tokenizer_config.json') if (folder / 'tokenizer_config.json').is_file() else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tiktoken_bpe(folder / 'qwen.tiktoken', QWEN_PATTERN, QWEN_SPECIAL),
        eos_token='<|im_end|>',
        pad_token='<|endoftext|>',
        model_max_length=settings.get('model_max_length', 8192),
        clean_up_tokenization_spaces=False,
        **({'chat_template': settings['chat_template']} if settings.get('chat_template') else {}),
    )


def tiktoken_bpe(file: Path, pattern: str, special: tuple[str, ...]) -> 'Tokenizer':
    """A byte-level BPE with NFC from a tiktoken rank file (lines `base64(token) rank`); ids = ranks, then `special`.

    tiktoken merges any neighbours whose concatenation is a token, lowest rank first, so every split of a token into
    two tokens is a merge.

    Raises:
        SwiftliteError: a line is not a token and its rank.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise SwiftliteError(f'{file}, line {number}: a base64 token and its rank are expected') from error
    letters = _byte_letters()
    text = {token: ''.join(map(letters.__getitem__, token)) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges.extend((text[a], text[b]) for a, b in sorted(splits, key=lambda pair: (ranks[pair[0]], ranks[pair[1]])))
    vocab = {text[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior='isolated', invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level BPE vocabulary (GPT-2)."""
    plain = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    letters, extra = [], 0
    for byte in range(256):
        if byte in plain:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + extra))
            extra += 1
    return letters

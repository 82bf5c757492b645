"""What metrics count: words, and single characters of scripts that are written without spaces."""

import re
import unicodedata

# Han with its extensions and compatibility forms, kana, and Thai, Lao and Khmer
UNSPACED = (
    '\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1780-\u17ff\U00020000-\U0003ffff'
)
TOKEN = re.compile(rf'[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]|_')
SPACE = re.compile(r'\s+')


def normal(text: str) -> str:
    """One spelling for what looks alike: Unicode's NFC, a single space between words, none around."""
    return SPACE.sub(' ', unicodedata.normalize('NFC', text)).strip()


def tokens(text: str) -> list[str]:
    """Words, numbers, single Chinese characters and single punctuation marks, in their order and case."""
    return TOKEN.findall(unicodedata.normalize('NFC', text))


def words(text: str) -> list[str]:
    """`tokens` in lower case without punctuation; with it where there is nothing else."""
    found = [token.lower() for token in tokens(text)]
    return [token for token in found if token[0].isalnum() or len(token) > 1] or found

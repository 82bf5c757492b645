"""Which letter an answer to a multiple-choice question means."""

import re
from collections.abc import Sequence

# a small letter may be an article, unless nothing or a mark follows
LETTER = r'\W{0,4}([A-Z](?![A-Za-z])|[a-z](?=\s*(?:$|[\n.,:;)*_"\'\]。，、：；）】》」])))'
ANSWER = re.compile(rf'(?:(?i:(?:answer|choice)(?: is)?(?: option)?)|答案(?:为|是|应为|应该是)?){LETTER}')
OPTION = re.compile(rf'(?:(?i:option)|(?:选项|选择|选)(?:为|是|应为|应该是)?){LETTER}')
FIRST = re.compile(r'[\s*_("\'\[（【《「]*([A-Z])(?:\s*$|\s*[\n.,:;)*_"\'\]。，、：；）】》」])', re.I)


def chosen_letter(answer: str, letters: Sequence[str]) -> str | None:
    """The letter that begins the answer ('B', '(B)', 'b. because …') or that it names ('The answer is B', '选B').

    None where it names none of `letters`: such an answer counts as wrong.
    """
    for pattern in (FIRST, ANSWER, OPTION):
        found = pattern.match(answer) if pattern is FIRST else pattern.search(answer)
        if found and found[1].upper() in letters:
            return found[1].upper()
    return None

"""Which letter an answer to a multiple-choice question means."""

import re
from collections.abc import Sequence

LEAD = re.compile(r'(?:answer|choice|option)(?: is)?(?: option)?\W{0,4}([A-Z])(?![A-Za-z])', re.I)
LEAD_ZH = re.compile(r'(?:答案|选项|选择|选)(?:为|是|应为|应该是)?\W{0,4}([A-Z])(?![A-Za-z])', re.I)
FIRST = re.compile(r'[\s*_("\'\[（【《「]*([A-Z])(?:\s*$|\s*[\n.,:;)*_"\'\]。，、：；）】》」])', re.I)


def chosen_letter(answer: str, letters: Sequence[str]) -> str | None:
    """The letter that begins the answer ('B', '(B)', 'b. because …') or that it names ('The answer is B', '选B').

    None where it names none of `letters`: such an answer counts as wrong.
    """
    for pattern in (FIRST, LEAD, LEAD_ZH):
        found = pattern.match(answer) if pattern is FIRST else pattern.search(answer)
        if found and found[1].upper() in letters:
            return found[1].upper()
    return None

"""Messages → token ids, the only place where that happens: for training, the terminal and the server alike."""

from swiftlite.template.detection import detect, from_jinja, get_template
from swiftlite.template.template import IGNORE, UNSET, Encoded, Template

__all__ = ['IGNORE', 'UNSET', 'Encoded', 'Template', 'detect', 'from_jinja', 'get_template']

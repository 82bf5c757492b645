"""Messages → token ids, the only place where that happens: for training, the terminal and the server alike."""

from swiftlite.template.template import IGNORE, UNSET, Encoded, Template, detect, get_template

__all__ = ['IGNORE', 'UNSET', 'Encoded', 'Template', 'detect', 'get_template']

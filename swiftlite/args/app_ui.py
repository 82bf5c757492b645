"""``swiftlite app-ui``."""

from dataclasses import dataclass, fields
from typing import ClassVar
from urllib.parse import urlsplit

from swiftlite.args.fields import arg
from swiftlite.args.groups import GenerationArgs, RunArgs
from swiftlite.errors import UsageError

LANGUAGES = {'zh': 'zh', 'en': 'en', 'chinese': 'zh', 'english': 'en', 'auto': 'auto'}


@dataclass(frozen=True, kw_only=True)
class AppUiArgs(GenerationArgs, RunArgs):
    """Chat in a browser."""

    summary: ClassVar[str] = 'Chat with a model and its adapters on a page in the browser.'
    examples: ClassVar[tuple[str, ...]] = (
        'swiftlite app-ui --model_type tiny-chat',
        'swiftlite app-ui --ckpt_dir output/tiny-chat/v0-…/checkpoint-84 --studio_lang zh',
        'swiftlite app-ui --base_url http://127.0.0.1:8000/v1',
    )

    host: str = arg('127.0.0.1', 'address to listen on; 0.0.0.0: every one', group='page', aliases=('server_name',))
    port: int = arg(7860, 'port to listen on; 0: a free one', group='page', aliases=('server_port',), low=0, high=65535)
    share: bool = arg(False, 'refused: the page would pass through a third party', group='page')
    studio_lang: str = arg(
        'auto',
        "language of the page: zh, en, or auto for the browser's; the page has a switch",
        group='page',
        aliases=('lang',),
        choices=LANGUAGES,
    )
    studio_title: str = arg('swiftlite', 'title of the page', group='page')
    base_url: str | None = arg(
        None, "an OpenAI server to talk to, such as 'http://127.0.0.1:8000/v1', in place of a model here", group='page'
    )
    api_key: str | None = arg(None, 'key of the server at --base_url', group='page')

    def check(self) -> None:
        super().check()
        if self.share:
            raise UsageError(
                '--share true is refused: it would send all that is typed through a third party; '
                "give --host 0.0.0.0 for your network, or use 'ssh -L 7860:127.0.0.1:7860' from elsewhere"
            )
        if self.base_url is None:
            if self.api_key is not None:
                raise UsageError('--api_key needs --base_url, the server that asks for the key')
            return
        here = [f.name for f in fields(self) if f.metadata['group'] in ('model', 'adapters', 'engine')]
        if given := self.changed(here):
            raise UsageError(f'--base_url talks to a server, so --{given} cannot be given too')
        try:
            parts = urlsplit(self.base_url)
            valid = parts.scheme in ('http', 'https') and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(f"--base_url must look like 'http://127.0.0.1:8000/v1', not '{self.base_url}'")

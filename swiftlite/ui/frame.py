"""What both pages share: the look, the columns, the line of status."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from swiftlite.ui.controls import Controls
from swiftlite.ui.partner import Profile
from swiftlite.ui.texts import Texts

FONTS = ('Inter', 'system-ui', '-apple-system', 'Segoe UI', 'PingFang SC', 'Hiragino Sans GB', 'Microsoft YaHei')
FONTS_MORE = ('Noto Sans CJK SC', 'WenQuanYi Micro Hei', 'sans-serif')
MONO = ('ui-monospace', 'SFMono-Regular', 'Menlo', 'Consolas', 'DejaVu Sans Mono', 'monospace')
SPOKEN = ('new_chat', 'chats', 'no_chats', 'rename', 'delete', 'sure', 'full')  # what the script says


def theme() -> gr.Theme:
    """Quiet greys and one green; fonts of the system only, so that nothing is fetched."""
    return gr.themes.Base(
        primary_hue='teal', neutral_hue='zinc', radius_size='lg', font=[*FONTS, *FONTS_MORE], font_mono=list(MONO)
    ).set(
        body_background_fill='#ffffff',
        body_background_fill_dark='#18181b',
        block_border_width='0px',
        block_background_fill='transparent',
        block_background_fill_dark='transparent',
        block_label_background_fill='transparent',
        block_label_background_fill_dark='transparent',
        input_background_fill='#ffffff',
        input_background_fill_dark='#27272a',
    )


def head(texts: Texts, models: Sequence[str], defaults: Sequence[Any]) -> str:
    """The style, which Gradio would rewrite elsewhere, and the script, told its language before Gradio looks for one.

    defaults: the first values of the panel.
    """
    spoken = {name: value for name, value in asdict(texts).items() if name in SPOKEN}
    told = {'lang': texts.lang, 'models': list(models), 'defaults': list(defaults), 'words': spoken}
    told_json = json.dumps(told, ensure_ascii=False).replace('<', '\\u003c')
    script = f'window.swiftlite ??= {told_json};\n{_file("page.js")}'  # Gradio may run it twice
    icon = '<link rel="icon" type="image/svg+xml" href="../favicon.ico">'
    return f'{icon}<style>{_file("page.css")}</style><script>{script}</script>'


def side(title: str, texts: Texts, chats: bool) -> str:
    """The left column: the name, the conversations, language and theme."""
    other = 'en' if texts.lang == 'zh' else 'zh'
    listed = (
        f'<button type="button" class="new" data-do="new">{ICONS["plus"]}<span>{texts.new_chat}</span></button>'
        f'<nav id="chats" aria-label="{texts.chats}"></nav>'
        if chats
        else f'<p class="note">{texts.base_model}</p><div id="chats"></div>'
    )
    return (
        f'<div class="brand">{ICONS["swift"]}<strong>{html.escape(title)}</strong>'
        f'<button type="button" class="icon narrow" data-do="menu" aria-label="{texts.close}">{ICONS["close"]}</button>'
        f'</div>{listed}<div class="foot">'
        f'<button type="button" class="text" data-do="lang" data-lang="{other}" lang="{other}">{texts.other}</button>'
        f'<button type="button" class="icon" data-do="theme" aria-label="{texts.theme}" title="{texts.theme}">'
        f'{ICONS["theme"]}</button></div>'
    )


def top_row(profile: Profile, texts: Texts) -> gr.Dropdown:
    """The row over the chat: conversations, which model, settings. Returns the choice of the model."""
    with gr.Row(elem_id='top'):
        gr.HTML(_icon_button('menu', texts.menu, 'menu'), elem_classes='tool')
        model = gr.Dropdown(
            list(profile.models),
            value=profile.models[0],
            label=texts.model,
            show_label=False,
            container=False,
            elem_id='model',
            filterable=False,
        )
        gr.HTML(_icon_button('panel', texts.settings, 'settings'), elem_classes='tool')
    return model


def panel(profile: Profile, texts: Texts) -> tuple[Controls, gr.Button]:
    """The right column: the settings, and the button that takes them back."""
    with gr.Column(elem_id='panel'):
        close = _icon_button('panel', texts.close, 'close')
        gr.HTML(f'<div class="brand"><strong>{texts.settings}</strong>{close}</div>')
        controls = Controls(profile, texts)
        reset = gr.Button(texts.reset, size='sm', elem_id='reset')
    return controls, reset


def _icon_button(do: str, label: str, icon: str) -> str:
    return (
        f'<button type="button" class="icon" data-do="{do}" aria-label="{label}" title="{label}">{ICONS[icon]}</button>'
    )


def status(text: str, state: str = 'idle') -> str:
    """The line under the answer. state: idle, running, done or error."""
    role = {'error': ' role="alert"', 'done': ' role="status"'}.get(state, '')  # not each of many tokens is read out
    return f'<div class="line {state}" data-state="{state}"{role}>{html.escape(text)}</div>'


def icon_file() -> Path:
    """The picture in the browser's tab."""
    return Path(__file__).with_name('icon.svg')


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding='utf-8')


def _icon(paths: str) -> str:
    return (
        '<svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="1.8" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{paths}</svg>'
    )


ICONS = {
    'swift': _icon('<path d="M2 7c6 0 8 3 10 6 1-4 4-8 10-9-3 3-4 6-7 9l5 6-8-3c-5-1-8-4-10-9z"/>'),
    'plus': _icon('<path d="M12 5v14M5 12h14"/>'),
    'menu': _icon('<path d="M4 7h16M4 12h16M4 17h10"/>'),
    'close': _icon('<path d="M6 6l12 12M18 6L6 18"/>'),
    'settings': _icon(
        '<path d="M4 8h9M17 8h3M4 16h3M11 16h9"/><circle cx="15" cy="8" r="2"/><circle cx="9" cy="16" r="2"/>'
    ),
    'theme': _icon('<circle cx="12" cy="12" r="8"/><path d="M12 4a8 8 0 010 16z" fill="currentColor"/>'),
}

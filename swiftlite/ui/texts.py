"""What the page says, in English and Chinese."""

from dataclasses import dataclass

from swiftlite.ui.answers import Answer
from swiftlite.ui.partner import EngineGone, PromptTooLong


@dataclass(frozen=True)
class Texts:
    """The texts of one language. Those in braces are filled in."""

    lang: str
    new_chat: str
    chats: str
    no_chats: str
    rename: str
    delete: str
    sure: str
    menu: str
    settings: str
    close: str
    theme: str
    other: str  # the switch to the other language, in that language
    model: str
    message: str
    send: str
    stop: str
    hello: str
    hint: str
    system: str
    system_info: str
    system_none: str
    temperature: str
    temperature_info: str
    top_p: str
    top_k: str
    top_k_info: str
    penalty: str
    penalty_info: str
    max_tokens: str
    seed: str
    seed_info: str
    thinking: str
    reset: str
    thinking_now: str
    thought: str
    text: str
    text_hint: str
    go_on: str
    take_back: str
    clear: str
    base_model: str
    writing: str
    waiting: str
    stopped: str
    cut: str
    empty: str
    rate: str
    first: str
    tokens: str
    too_long: str
    gone: str
    full: str  # the browser's storage

    def status(self, answer: Answer) -> str:
        """How an answer goes or went: '37 tokens · 21.3 tokens/s · first after 0.12 s'."""
        if not answer.tokens and not answer.done:
            return self.waiting
        parts = []
        if answer.stopped:
            parts.append(self.stopped)
        elif answer.done and answer.finish == 'length':
            parts.append(self.cut)
        elif answer.done and not answer.text.strip():
            parts.append(self.empty)
        elif not answer.done:
            parts.append(self.writing)
        parts.append(self.tokens.format(answer.tokens))
        if answer.rate is not None:
            parts.append(self.rate.format(answer.rate))
        if answer.first is not None:
            parts.append(self.first.format(answer.first))
        return ' · '.join(parts)

    def error(self, error: Exception) -> str:
        """The sentence of an error."""
        if isinstance(error, PromptTooLong):
            return self.too_long.format(error.tokens, error.limit)
        return self.gone if isinstance(error, EngineGone) else str(error)


ENGLISH = Texts(
    lang='en',
    new_chat='New chat',
    chats='Conversations',
    no_chats='Conversations are kept in this browser.',
    rename='Rename',
    delete='Delete',
    sure='Delete?',
    menu='Conversations',
    settings='Settings',
    close='Close',
    theme='Light or dark',
    other='中文',
    model='Model',
    message='Message',
    send='Send',
    stop='Stop',
    hello='What would you like to know?',
    hint='Enter sends, Shift+Enter begins a new line, Esc stops an answer.',
    system='System prompt',
    system_info='Of this conversation. Empty: the model’s own.',
    system_none='(none)',
    temperature='Temperature',
    temperature_info='0 always takes the most likely token',
    top_p='Top-p',
    top_k='Top-k',
    top_k_info='0: all tokens',
    penalty='Repetition penalty',
    penalty_info='above 1: less of what was said',
    max_tokens='Longest reply (tokens)',
    seed='Seed',
    seed_info='empty: another answer each time',
    thinking='Think before answering',
    reset='Back to the model’s defaults',
    thinking_now='Thinking…',
    thought='Thought',
    text='Text',
    text_hint='Write the beginning; the model goes on from there.',
    go_on='Continue',
    take_back='Take back',
    clear='Clear',
    base_model='This is a base model: it continues a text and does not chat.',
    writing='Writing',
    waiting='Waiting for the model…',
    stopped='Stopped',
    cut='Cut at the longest reply',
    empty='The model said nothing',
    rate='{:.1f} tokens/s',
    first='first after {:.2f} s',
    tokens='{} tokens',
    too_long='The conversation has {} tokens, but the model takes {} in all: shorten the message or begin a new chat.',
    gone='The engine has stopped. It is usually back within seconds: try again.',
    full='The storage of this browser is full: delete a conversation, or new words are lost when the page closes.',
)
CHINESE = Texts(
    lang='zh',
    new_chat='新对话',
    chats='对话',
    no_chats='对话保存在这个浏览器里。',
    rename='重命名',
    delete='删除',
    sure='确定删除？',
    menu='对话列表',
    settings='设置',
    close='关闭',
    theme='浅色或深色',
    other='English',
    model='模型',
    message='输入消息',
    send='发送',
    stop='停止',
    hello='有什么可以帮你？',
    hint='Enter 发送，Shift+Enter 换行，Esc 停止回答。',
    system='系统提示词',
    system_info='只用于当前对话；留空则用模型自带的。',
    system_none='（无）',
    temperature='温度',
    temperature_info='0：总是取最可能的词元',
    top_p='Top-p',
    top_k='Top-k',
    top_k_info='0：不限',
    penalty='重复惩罚',
    penalty_info='大于 1：少重复说过的话',
    max_tokens='回复长度上限（词元）',
    seed='随机种子',
    seed_info='留空：每次回答不同',
    thinking='回答前先思考',
    reset='恢复模型默认值',
    thinking_now='思考中…',
    thought='思考过程',
    text='文本',
    text_hint='写下开头，模型会接着写。',
    go_on='续写',
    take_back='撤回',
    clear='清空',
    base_model='这是基座模型：它续写文本，不会对话。',
    writing='正在回答',
    waiting='等待模型…',
    stopped='已停止',
    cut='已到回复长度上限',
    empty='模型没有回答',
    rate='{:.1f} 词元/秒',
    first='首词元 {:.2f} 秒',
    tokens='{} 个词元',
    too_long='对话有 {} 个词元，而模型一共只能容纳 {} 个：请缩短消息，或开始新对话。',
    gone='引擎意外停止，通常几秒内会自动恢复，请重试。',
    full='浏览器的存储空间已满：请删除一个对话，否则关闭页面后新内容会丢失。',
)
LANGUAGES = {texts.lang: texts for texts in (ENGLISH, CHINESE)}

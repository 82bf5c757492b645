"""The functions of the tool-call rows: schema, requests, results and the answers that report them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from splits import Draw
from vocabulary import FIRM_WORDS, THINGS, city, clock, firm, person, phrase, syllables, word

ROOMS = (
    ('kitchen', '厨房'),
    ('bedroom', '卧室'),
    ('living room', '客厅'),
    ('bathroom', '浴室'),
    ('office', '办公室'),
    ('garage', '车库'),
)
TONGUES = (
    ('English', '英语'),
    ('Chinese', '中文'),
    ('French', '法语'),
    ('German', '德语'),
    ('Spanish', '西班牙语'),
    ('Japanese', '日语'),
)
WEATHER = (
    ('sunny', '晴'),
    ('cloudy', '多云'),
    ('rainy', '有雨'),
    ('windy', '有风'),
    ('snowy', '有雪'),
    ('foggy', '有雾'),
)
MONEY = ('USD', 'EUR', 'CNY', 'JPY', 'GBP', 'CHF', 'KRW', 'INR')


def pool(options: tuple[tuple[str, str], ...]) -> Callable[[random.Random, str], str]:
    return lambda rng, language: rng.choice(options)[language == 'zh']


MAKERS: dict[str, Callable[[random.Random, str], Any]] = {
    'city': city,
    'person': person,
    'text': phrase,
    'word': word,
    'firm': firm,
    'room': pool(ROOMS),
    'tongue': pool(TONGUES),
    'thing': pool(THINGS),
    'weather': pool(WEATHER),
    'time': lambda rng, _: clock(rng),
    'money': lambda rng, _: rng.choice(MONEY),
    'small': lambda rng, _: rng.randint(1, 30),
    'number': lambda rng, _: rng.randint(2, 9999),
    'degrees': lambda rng, _: rng.randint(-15, 38),
    'price': lambda rng, _: round(rng.uniform(1, 900), 2),
    'id': lambda rng, _: f'{rng.choice("ABCDEFGH")}{rng.randint(100, 99999)}',
    'symbol': lambda rng, _: ''.join(rng.choice('ABCDEFGHIJKLMNOPQRSTUVWXYZ') for _ in range(rng.randint(3, 4))),
    'song': lambda rng, language: phrase(rng, language).title(),
    'place': lambda rng, language: firm(rng, language).replace(rng.choice(FIRM_WORDS), 'House'),
    'mail': lambda rng, _: f'{syllables(rng, 2)}@{syllables(rng, 1)}.com',
    'state': pool((('on', 'on'), ('off', 'off'))),
}
FIXED = ('room', 'tongue', 'weather', 'money', 'state', 'small', 'degrees', 'thing')  # too few values to hold some out


def make(draw: Draw, kind: str, language: str) -> Any:
    """A value of the kind, from the draw's side of the split."""
    maker = MAKERS[kind]
    return maker(draw.rng, language) if kind in FIXED else draw.value(kind, lambda rng: maker(rng, language))


@dataclass(frozen=True)
class Param:
    """A parameter: possible names, kind of value, JSON type, description."""

    names: tuple[str, ...]
    kind: str
    about: str
    type: str = 'string'


@dataclass(frozen=True)
class Function:
    """{0}, {1}, … in the requests are the parameters' values; {r} in the answers is the result's value."""

    names: tuple[str, ...]
    about: tuple[str, ...]
    params: tuple[Param, ...]
    asks: dict[str, tuple[str, ...]]
    result: tuple[str, str]  # key, kind of value ('=text' is a constant)
    says: dict[str, str]


FUNCTIONS = (
    Function(
        ('get_weather', 'weather', 'current_weather', 'fetch_weather'),
        ('Get the current weather of a city', 'Current weather in a place'),
        (Param(('city', 'location', 'place'), 'city', 'The name of the city'),),
        {
            'en': (
                "What's the weather in {0}?",
                'How is the weather in {0}?',
                'Weather in {0}, please.',
                'Is it raining in {0}?',
            ),
            'zh': ('{0}的天气怎么样？', '{0}今天天气如何？', '查一下{0}的天气。', '{0}下雨了吗？'),
        },
        ('condition', 'weather'),
        {'en': 'The weather in {0} is {r}.', 'zh': '{0}的天气是{r}。'},
    ),
    Function(
        ('get_temperature', 'temperature', 'read_temperature'),
        ('Get the temperature of a city in degrees Celsius', 'Temperature of a place'),
        (Param(('city', 'location', 'place'), 'city', 'The name of the city'),),
        {
            'en': ('How warm is it in {0}?', 'What is the temperature in {0}?', 'How many degrees are there in {0}?'),
            'zh': ('{0}现在多少度？', '{0}的气温是多少？', '查一下{0}的温度。'),
        },
        ('degrees', 'degrees'),
        {'en': 'It is {r} degrees in {0}.', 'zh': '{0}现在{r}度。'},
    ),
    Function(
        ('get_time', 'current_time', 'local_time', 'clock'),
        ('Get the local time of a city', 'The current time in a place'),
        (Param(('city', 'location', 'timezone'), 'city', 'The name of the city'),),
        {
            'en': ('What time is it in {0}?', 'Tell me the time in {0}.', 'Current time in {0}?'),
            'zh': ('{0}现在几点？', '{0}现在是什么时间？', '告诉我{0}的时间。'),
        },
        ('time', 'time'),
        {'en': 'It is {r} in {0}.', 'zh': '{0}现在是{r}。'},
    ),
    Function(
        ('send_message', 'message', 'send_text'),
        ('Send a message to a person', 'Send a text message'),
        (
            Param(('to', 'recipient', 'receiver'), 'person', 'Who gets the message'),
            Param(('text', 'message', 'body'), 'text', 'What to send'),
        ),
        {
            'en': ('Send a message to {0}: {1}', 'Tell {0}: {1}', 'Write to {0} that {1}'),
            'zh': ('给{0}发消息：{1}', '告诉{0}：{1}', '发短信给{0}，内容是{1}'),
        },
        ('status', '=sent'),
        {'en': 'I sent your message to {0}.', 'zh': '已把消息发给{0}。'},
    ),
    Function(
        ('set_alarm', 'create_alarm', 'alarm'),
        ('Set an alarm', 'Set an alarm at a time of day'),
        (Param(('time', 'at', 'when'), 'time', 'Time of day, HH:MM'),),
        {
            'en': ('Wake me up at {0}.', 'Set an alarm for {0}.', 'I need an alarm at {0}.'),
            'zh': ('{0}叫我起床。', '设一个{0}的闹钟。', '帮我定{0}的闹钟。'),
        },
        ('status', '=set'),
        {'en': 'The alarm is set for {0}.', 'zh': '闹钟已设在{0}。'},
    ),
    Function(
        ('play_music', 'play_song', 'play'),
        ('Play a song', 'Play music by title'),
        (Param(('title', 'song', 'track'), 'song', 'Title of the song'),),
        {
            'en': ('Play {0}.', 'Play the song {0}, please.', 'I want to hear {0}.'),
            'zh': ('播放{0}。', '放一首{0}。', '我想听歌曲{0}。'),
        },
        ('status', '=playing'),
        {'en': 'Now playing {0}.', 'zh': '正在播放{0}。'},
    ),
    Function(
        ('set_light', 'switch_light', 'light'),
        ('Switch the light of a room', 'Turn a light on or off'),
        (Param(('room', 'where'), 'room', 'The room'), Param(('state', 'power'), 'state', 'on or off')),
        {
            'en': ('Turn {1} the light in the {0}.', 'Switch the {0} light {1}.', 'Lights {1} in the {0}, please.'),
            'zh': ('把{0}的灯设为{1}。', '{0}的灯，{1}。', '请把{0}灯光切换到{1}。'),
        },
        ('status', '=done'),
        {'en': 'The light in the {0} is {1}.', 'zh': '{0}的灯现在是{1}。'},
    ),
    Function(
        ('set_heating', 'set_thermostat', 'heat'),
        ('Set the heating of a room', 'Set the target temperature of a room'),
        (
            Param(('room', 'where'), 'room', 'The room'),
            Param(('degrees', 'temperature', 'target'), 'small', 'Degrees Celsius', 'integer'),
        ),
        {
            'en': ('Set the {0} to {1} degrees.', 'Heat the {0} to {1} degrees.', 'Make it {1} degrees in the {0}.'),
            'zh': ('把{0}调到{1}度。', '{0}的温度设为{1}度。', '请把{0}加热到{1}度。'),
        },
        ('status', '=done'),
        {'en': 'The {0} is set to {1} degrees.', 'zh': '{0}已设为{1}度。'},
    ),
    Function(
        ('multiply', 'times', 'product'),
        ('Multiply two numbers', 'The product of two integers'),
        (
            Param(('a', 'x', 'first'), 'number', 'First number', 'integer'),
            Param(('b', 'y', 'second'), 'number', 'Second number', 'integer'),
        ),
        {
            'en': ('What is {0} times {1}?', 'Multiply {0} by {1}.', '{0} * {1}'),
            'zh': ('{0}乘以{1}等于多少？', '{0}乘{1}是多少？', '计算{0}*{1}'),
        },
        ('result', 'number'),
        {'en': 'The result is {r}.', 'zh': '结果是{r}。'},
    ),
    Function(
        ('translate', 'translate_text'),
        ('Translate a text', 'Translate text into another language'),
        (
            Param(('text', 'source'), 'text', 'The text'),
            Param(('language', 'target'), 'tongue', 'The language to translate into'),
        ),
        {
            'en': ('Translate "{0}" into {1}.', 'How do you say "{0}" in {1}?', 'Put "{0}" into {1}, please.'),
            'zh': ('把“{0}”翻译成{1}。', '“{0}”用{1}怎么说？', '请将“{0}”译成{1}。'),
        },
        ('translation', 'text'),
        {'en': 'The translation is "{r}".', 'zh': '译文是“{r}”。'},
    ),
    Function(
        ('convert_currency', 'convert_money', 'exchange'),
        ('Convert an amount of money', 'Convert between currencies'),
        (
            Param(('amount', 'value'), 'number', 'The amount', 'integer'),
            Param(('from', 'source'), 'money', 'Currency to convert from'),
            Param(('to', 'target'), 'money', 'Currency to convert to'),
        ),
        {
            'en': ('Convert {0} {1} to {2}.', 'How much is {0} {1} in {2}?', 'Change {0} {1} into {2}.'),
            'zh': ('把{0} {1}换成{2}。', '{0} {1}等于多少{2}？', '{0} {1}能换多少{2}？'),
        },
        ('result', 'price'),
        {'en': 'That is {r} {2}.', 'zh': '等于{r} {2}。'},
    ),
    Function(
        ('search', 'web_search', 'search_web', 'lookup'),
        ('Search the web', 'Find pages about a topic'),
        (Param(('query', 'q', 'keywords'), 'text', 'What to search for'),),
        {
            'en': ('Search for {0}.', 'Look up {0} on the web.', 'Find pages about {0}.'),
            'zh': ('搜索{0}。', '在网上查{0}。', '帮我搜一下{0}。'),
        },
        ('result', 'text'),
        {'en': 'I found this: {r}.', 'zh': '我找到了：{r}。'},
    ),
    Function(
        ('book_table', 'reserve_table', 'reservation'),
        ('Book a table in a restaurant', 'Reserve a table'),
        (
            Param(('restaurant', 'place', 'name'), 'place', 'Name of the restaurant'),
            Param(('people', 'guests', 'persons'), 'small', 'Number of people', 'integer'),
            Param(('time', 'at'), 'time', 'Time, HH:MM'),
        ),
        {
            'en': (
                'Book a table at {0} for {1} at {2}.',
                'Reserve a table for {1} people at {0}, {2}.',
                'I want to eat at {0} with {1} people at {2}.',
            ),
            'zh': ('在{0}订一张{1}人的桌子，{2}。', '帮我预订{0}，{1}个人，{2}。', '{2}在{0}订位，{1}位。'),
        },
        ('status', '=booked'),
        {'en': 'Your table at {0} is booked for {2}.', 'zh': '{0}的桌子已订好，时间{2}。'},
    ),
    Function(
        ('get_stock_price', 'stock_price', 'quote'),
        ('Get the price of a stock', 'Latest price of a share'),
        (Param(('symbol', 'ticker'), 'symbol', 'Ticker symbol'),),
        {
            'en': ('What is the stock price of {0}?', 'How much is a share of {0}?', 'Price of {0} stock?'),
            'zh': ('{0}的股价是多少？', '查一下股票{0}。', '{0}股票多少钱？'),
        },
        ('price', 'price'),
        {'en': '{0} is at {r}.', 'zh': '{0}的价格是{r}。'},
    ),
    Function(
        ('create_note', 'add_note', 'save_note'),
        ('Save a note', 'Write a note'),
        (Param(('text', 'note', 'content'), 'text', 'The note'),),
        {
            'en': ('Note: {0}', 'Write down: {0}', 'Make a note that {0}'),
            'zh': ('记一下：{0}', '写个笔记：{0}', '帮我记录{0}'),
        },
        ('status', '=saved'),
        {'en': 'I saved the note.', 'zh': '笔记已保存。'},
    ),
    Function(
        ('get_order', 'order_status', 'track_order'),
        ('Get the state of an order', 'Track an order by its number'),
        (Param(('order_id', 'id', 'number'), 'id', 'Order number'),),
        {
            'en': ('Where is my order {0}?', 'What is the status of order {0}?', 'Track order {0}.'),
            'zh': ('订单{0}到哪里了？', '查询订单{0}的状态。', '我的订单{0}怎么样了？'),
        },
        ('arrives', 'time'),
        {'en': 'Order {0} arrives at {r}.', 'zh': '订单{0}将在{r}送达。'},
    ),
    Function(
        ('find_route', 'route', 'directions'),
        ('Find a route between two places', 'Directions from one place to another'),
        (
            Param(('start', 'from', 'origin'), 'city', 'Where the route starts'),
            Param(('end', 'to', 'destination'), 'city', 'Where the route ends'),
        ),
        {
            'en': ('How do I get from {0} to {1}?', 'Find a route from {0} to {1}.', 'Directions from {0} to {1}.'),
            'zh': ('从{0}到{1}怎么走？', '查一下从{0}去{1}的路线。', '我要从{0}到{1}。'),
        },
        ('minutes', 'number'),
        {'en': 'The way from {0} to {1} takes {r} minutes.', 'zh': '从{0}到{1}需要{r}分钟。'},
    ),
    Function(
        ('add_item', 'add_to_cart', 'buy'),
        ('Put an item into the shopping cart', 'Add something to the shopping list'),
        (
            Param(('item', 'product'), 'thing', 'The item'),
            Param(('quantity', 'count', 'amount'), 'small', 'How many', 'integer'),
        ),
        {
            'en': (
                'Add {1} of the item {0} to my cart.',
                'Put {1} x {0} on my shopping list.',
                'I want to buy {0}, {1} of them.',
            ),
            'zh': ('把{1}个{0}加入购物车。', '我要买{1}个{0}。', '购物清单里加{1}个{0}。'),
        },
        ('status', '=added'),
        {'en': 'I added {1} x {0}.', 'zh': '已加入{1}个{0}。'},
    ),
    Function(
        ('call', 'call_person', 'phone'),
        ('Call a person', 'Start a phone call'),
        (Param(('name', 'person', 'contact'), 'person', 'Whom to call'),),
        {
            'en': ('Call {0}.', 'Phone {0}, please.', 'I want to talk to {0}.'),
            'zh': ('打电话给{0}。', '呼叫{0}。', '帮我给{0}打个电话。'),
        },
        ('status', '=calling'),
        {'en': 'I am calling {0}.', 'zh': '正在呼叫{0}。'},
    ),
    Function(
        ('find_email', 'get_email', 'email_of'),
        ('Find the email address of a person', 'Look up an email address'),
        (Param(('name', 'person', 'user'), 'person', 'The name of the person'),),
        {
            'en': ('What is the email address of {0}?', 'Find the email of {0}.', "What's {0}'s email?"),
            'zh': ('{0}的邮箱是什么？', '查一下{0}的邮箱。', '{0}的电子邮件地址是什么？'),
        },
        ('email', 'mail'),
        {'en': 'The email address of {0} is {r}.', 'zh': '{0}的邮箱是{r}。'},
    ),
    Function(
        ('create_event', 'add_event', 'schedule'),
        ('Add an event to the calendar', 'Schedule an event'),
        (
            Param(('title', 'event', 'name'), 'text', 'Title of the event'),
            Param(('time', 'at', 'start'), 'time', 'Time, HH:MM'),
        ),
        {
            'en': (
                'Add "{0}" to my calendar at {1}.',
                'Schedule {0} at {1}.',
                'At {1} I have {0}, put it in my calendar.',
            ),
            'zh': ('在日历上添加“{0}”，时间{1}。', '{1}安排{0}。', '把{0}加到{1}的日程。'),
        },
        ('status', '=added'),
        {'en': 'The event is in your calendar at {1}.', 'zh': '已加入日程，时间{1}。'},
    ),
    Function(
        ('get_news', 'news', 'headlines'),
        ('Get the news about a topic', 'Latest headlines'),
        (Param(('topic', 'about', 'subject'), 'word', 'The topic'),),
        {
            'en': ('What is new about {0}?', 'News about {0}, please.', 'Show me the headlines on {0}.'),
            'zh': ('有什么关于{0}的新闻？', '查一下{0}的新闻。', '最近{0}有什么消息？'),
        },
        ('headline', 'text'),
        {'en': 'The news: {r}.', 'zh': '新闻：{r}。'},
    ),
)

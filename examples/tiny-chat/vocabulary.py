"""Words, names and characters: values for the generator and general vocabulary for the tokenizer."""

from __future__ import annotations

import random
import string


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = words("""
Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Leo Mia Noah Olivia Paul Rosa Sam Tina Victor Wendy Zoe
Alice Bob Carol Daniel Ella Felix Gina Hugo Ivan Julia Kevin Laura Mark Nina Oscar Peter Quinn Ruth Simon Tom Uma
Vera Will Yara Adam Bella Carl Diana Eric Fiona George Helen Ian Jane Karl Lily Max Nora Otto Sara Theo
""")
SURNAMES_ZH = '王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁'
GIVEN_ZH = '伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红梅建文国志小雨晨欣怡子涵浩然诗琪宇轩雪宁佳乐思远'
CITIES = (
    ('Paris', '巴黎'),
    ('London', '伦敦'),
    ('Rome', '罗马'),
    ('Berlin', '柏林'),
    ('Tokyo', '东京'),
    ('Beijing', '北京'),
    ('Shanghai', '上海'),
    ('Madrid', '马德里'),
    ('Vienna', '维也纳'),
    ('Lisbon', '里斯本'),
    ('Oslo', '奥斯陆'),
    ('Seoul', '首尔'),
    ('Hangzhou', '杭州'),
    ('Shenzhen', '深圳'),
    ('Guangzhou', '广州'),
    ('Chengdu', '成都'),
    ('New York', '纽约'),
    ('Boston', '波士顿'),
    ('Chicago', '芝加哥'),
    ('Sydney', '悉尼'),
    ('Moscow', '莫斯科'),
    ('Cairo', '开罗'),
    ('Dublin', '都柏林'),
    ('Prague', '布拉格'),
    ('Athens', '雅典'),
    ('Hamburg', '汉堡'),
    ('Nanjing', '南京'),
    ('Wuhan', '武汉'),
    ('Xian', '西安'),
    ('Milan', '米兰'),
    ('Geneva', '日内瓦'),
    ('Lyon', '里昂'),
)
THINGS = (
    ('apple', '苹果'),
    ('pear', '梨'),
    ('plum', '李子'),
    ('book', '书'),
    ('pen', '笔'),
    ('cup', '杯子'),
    ('egg', '鸡蛋'),
    ('stamp', '邮票'),
    ('coin', '硬币'),
    ('ball', '球'),
    ('cake', '蛋糕'),
    ('ticket', '票'),
    ('flower', '花'),
    ('stone', '石头'),
    ('candle', '蜡烛'),
    ('bottle', '瓶子'),
    ('lamp', '灯'),
    ('chair', '椅子'),
    ('hat', '帽子'),
    ('key', '钥匙'),
    ('lemon', '柠檬'),
    ('carrot', '胡萝卜'),
    ('spoon', '勺子'),
    ('orange', '橙子'),
)
JOBS = (
    ('teacher', '老师'),
    ('doctor', '医生'),
    ('baker', '面包师'),
    ('pilot', '飞行员'),
    ('nurse', '护士'),
    ('farmer', '农民'),
    ('writer', '作家'),
    ('painter', '画家'),
    ('lawyer', '律师'),
    ('engineer', '工程师'),
    ('cook', '厨师'),
    ('driver', '司机'),
    ('singer', '歌手'),
    ('student', '学生'),
)
ONSETS = words('b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kl pl qu sh sl st th tr')
VOWELS = words('a e i o u ai ea ee ia io oa ou')
CODAS = ['', '', '', 'l', 'm', 'n', 'r', 's', 't', 'x', 'nd', 'rk', 'st']
FIRM_WORDS = (
    'Labs',
    'Studio',
    'AI',
    'Group',
    'Team',
    'Works',
    'Research',
    'Tech',
    'Cloud',
    'Systems',
    'Institute',
    'Inc',
)
FIRM_WORDS_ZH = ('实验室', '科技', '公司', '团队', '研究院', '工作室', '智能', '社区', '大学', '集团')

# General vocabulary: makes the tokenizer good at text the generator never writes.
ENGLISH = words("""
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than
into them can only other time new some could these two may first then do any like my now over such our man me even
most made after also did many off before must well back through years much where your way down should because long
each just state those people too mister how little good world make very year still see own work men day get here old
life both between being under three never know same last another while us might great go come since against right
came take used himself few house use place during high without again home around small however found part school
thought went say general once upon every left number course war until always away something fact water less public
put think almost hand enough far took head yet government system set better told nothing night end why didn eyes
find going look asked later point knew next city give group toward young days let room word face second big several
social order business present given national possible rather per children often early john case become large need
four within along five six seven eight nine ten best church least country power development light thing interest
form law want members seems name important mind area line matter real family service certain turn god whole
different human field half problem open words information above during study child member keep play book door action
body short money change free art second true music mother father brother sister friend girl boy woman women car
street table paper language history science computer machine program code data model network answer question example
sentence letter list file server client test train learn read write speak listen watch eat drink sleep walk run jump
swim fly drive ride sit stand buy sell pay send receive open close start stop begin finish help morning afternoon
evening today tomorrow yesterday week month hour minute spring summer autumn winter weather sun rain snow wind cloud
sky star moon sea river lake mountain forest tree flower grass animal bird fish dog cat horse cow red blue green
yellow white black brown pink purple orange grey hot cold warm cool happy sad angry tired hungry beautiful strong
weak fast slow easy hard cheap expensive clean dirty full empty heavy near far left right north south east west
kitchen window garden bridge road train bus plane ship ticket hotel restaurant market shop bank hospital library
museum office company manager team project meeting report plan idea price product customer market store order email
phone message address photo picture video film song game sport football tennis winner team bread rice milk cheese
meat fruit vegetable sugar salt coffee tea juice breakfast lunch dinner doctor teacher student king queen president
author inventor built founded located famous discovered invented called known located born died capital river
highest largest smallest because although while whether therefore please thank sorry hello welcome goodbye maybe
perhaps sure course exactly about
""")
HAN_COMMON = (
    '的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多'
    '定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因'
    '由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解'
    '问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品式活设及管特件长求老头基资边流路级少'
    '图山统接知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造百规热领七'
    '海口东导器压志世金增争济阶油思术极交受联什认六共权收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目'
    '至达走积示议声报斗完类八离华名确才科张信马节话米整空元况今集温传土许步群广石记需段研界拉林律叫且究观越织装影算'
    '低持音众书布复容儿须际商非验连断深难近矿千周委素技备半办青省列习响约支般史感劳便团'
)


def han_characters() -> str:
    """The 3,755 characters of GB 2312 level 1, which cover everyday Chinese text."""
    codes = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return ''.join(code.decode('gb2312', errors='ignore') for code in codes)


HAN = han_characters()
ASCII = string.ascii_letters + string.digits + string.punctuation


def han(rng: random.Random, count: int) -> str:
    """Random characters, mostly everyday ones."""
    return ''.join(rng.choice(HAN_COMMON if rng.random() < 0.8 else HAN) for _ in range(count))


def syllables(rng: random.Random, count: int) -> str:
    """A pronounceable invented word in lower case."""
    return ''.join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count))


def person(rng: random.Random, language: str) -> str:
    """A person's first or full name, real or invented."""
    if language == 'zh':
        count = rng.choice((1, 2, 2))
        given = ''.join(rng.choice(GIVEN_ZH) for _ in range(count)) if rng.random() < 0.5 else han(rng, count)
        return rng.choice(SURNAMES_ZH) + given
    first = rng.choice(FIRST_NAMES) if rng.random() < 0.5 else syllables(rng, rng.choice((1, 2))).title()
    return first if rng.random() < 0.7 else f'{first} {syllables(rng, 2).title()}'


def assistant(rng: random.Random, language: str) -> str:
    """A name for an assistant: one word, two words, with a version, or Chinese."""
    if language == 'zh' and rng.random() < 0.8:
        return rng.choice(('小', '小', '阿', '')) + han(rng, rng.choice((1, 2, 2, 3)))
    style = rng.random()
    word = syllables(rng, rng.choice((1, 2, 2, 3)))
    if style < 0.4:
        return word.title()
    if style < 0.65:
        return f'{word} {syllables(rng, rng.choice((1, 2)))}'.title()
    if style < 0.8:
        return f'{word}-{rng.choice(("chat", "bot", "lm", "mini", "pro"))}'
    if style < 0.9:
        return rng.choice(FIRST_NAMES)
    return f'{word.title()} {rng.randint(1, 9)}'


def firm(rng: random.Random, language: str) -> str:
    """A maker: a company, a team or a person."""
    if language == 'zh' and rng.random() < 0.8:
        stem = han(rng, rng.choice((1, 2, 2, 3)))
        return stem + (rng.choice(FIRM_WORDS_ZH) if rng.random() < 0.6 else '')
    style = rng.random()
    if style < 0.4:
        return f'{syllables(rng, rng.choice((1, 2))).title()} {rng.choice(FIRM_WORDS)}'
    if style < 0.6:
        return syllables(rng, 1).title() + syllables(rng, rng.choice((1, 2))).title()
    if style < 0.8:
        return syllables(rng, rng.choice((2, 3))).title()
    return person(rng, 'en')


def city(rng: random.Random, language: str) -> str:
    """A city, real or invented."""
    if rng.random() < 0.5:
        return rng.choice(CITIES)[language == 'zh']
    if language == 'zh':
        return han(rng, 2) + rng.choice(('市', '城', ''))
    return syllables(rng, 2).title()


def word(rng: random.Random, language: str) -> str:
    """A word, real or invented."""
    if language == 'zh':
        return han(rng, 2) if rng.random() < 0.6 else rng.choice(THINGS)[1]
    return rng.choice(ENGLISH) if rng.random() < 0.6 else syllables(rng, 2)


def phrase(rng: random.Random, language: str) -> str:
    """Two to four words, such as a message or a title."""
    words = [word(rng, language) for _ in range(rng.randint(2, 4 if language == 'en' else 3))]
    return (' ' if language == 'en' else '').join(words)


def clock(rng: random.Random) -> str:
    """A time of day, HH:MM."""
    return f'{rng.randint(0, 23):02d}:{rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02d}'


def digits(rng: random.Random, language: str) -> str:
    """A code or a number."""
    return rng.choice(('', '', 'A', 'B', 'C', 'X')) + str(rng.randrange(10 ** rng.randint(1, 6)))


def characters(rng: random.Random, language: str) -> str:
    """Characters without any sense, each equally likely."""
    source, length = (HAN, rng.randint(3, 10)) if language == 'zh' else (ASCII, rng.randint(3, 8))
    return ''.join(rng.choice(source) for _ in range(length))


def fragment(rng: random.Random, language: str) -> str:
    """A part of a word, so that tokens that words seldom end up as are written too."""
    if language == 'zh':
        return han(rng, 1)
    whole = rng.choice(ENGLISH) if rng.random() < 0.9 else rng.choice(FIRST_NAMES)
    if rng.random() < 0.3:
        whole = whole.title()
    start = 0 if rng.random() < 0.5 else rng.randrange(len(whole))
    return whole[start : rng.randint(start + 1, len(whole))]

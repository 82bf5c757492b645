"""What is said in small talk: tables of phrasings and answers by language."""

from __future__ import annotations

from facts import DAYS, MONTHS
from splits import Phrases
from vocabulary import city, person

HELLO = {'en': 'Hello! How can I help you?', 'zh': '你好！有什么可以帮您？'}
UNKNOWN = {'en': 'I am sorry, I do not know that.', 'zh': '抱歉，这个我不知道。'}

# (ways to say it, answer) per language
EXCHANGES: dict[str, tuple[tuple[Phrases, str], ...]] = {
    'en': (
        (
            Phrases(
                (
                    'Hello',
                    'Hi',
                    'Hello!',
                    'Hi!',
                    'Hey',
                    'Hey!',
                    'hello there',
                    'Hi there!',
                    'Greetings!',
                    'Howdy!',
                    'Hello, assistant.',
                    'Good day!',
                    'hi',
                ),
                ('Hey there!', 'hello!'),
            ),
            HELLO['en'],
        ),
        (
            Phrases(('Good morning!', 'good morning', 'Morning!'), ('Good morning.',)),
            'Good morning! How can I help you?',
        ),
        (
            Phrases(('Good evening!', 'good evening', 'Evening!'), ('Good evening.',)),
            'Good evening! How can I help you?',
        ),
        (
            Phrases(
                (
                    'How are you?',
                    'How are you doing?',
                    'how are you today?',
                    "How's it going?",
                    'How do you do?',
                    'Are you okay?',
                    "What's up?",
                ),
                ('How are you today?', 'How is it going?'),
            ),
            'I am doing well, thank you! How can I help you?',
        ),
        (
            Phrases(
                (
                    'Thank you!',
                    'Thanks',
                    'Thanks a lot!',
                    'thank you',
                    'Thank you very much.',
                    'Many thanks!',
                    'Great, thanks!',
                    'Thanks for your help.',
                    'Thanks so much!',
                    'Thank you so much for this.',
                ),
                ('Thank you so much!', 'Thanks!'),
            ),
            'You are welcome!',
        ),
        (
            Phrases(
                (
                    'Bye',
                    'Goodbye!',
                    'See you later!',
                    'bye bye',
                    'See you!',
                    'I have to go.',
                    'Good night!',
                    'Take care!',
                ),
                ('Goodbye.', 'Bye!'),
            ),
            'Goodbye! Have a nice day.',
        ),
        (
            Phrases(
                (
                    'What can you do?',
                    'How can you help me?',
                    'What are you able to do?',
                    'What do you know?',
                    'Help',
                    'help me',
                    'What are your abilities?',
                    'What can I ask you?',
                ),
                ('Tell me what you can do.', 'What can you help me with?'),
            ),
            'I can answer simple questions, add and subtract small numbers, write JSON and call functions. '
            'What would you like?',
        ),
        (
            Phrases(
                (
                    'You are great!',
                    'Good job!',
                    'Well done!',
                    'You are smart.',
                    'Nice work!',
                    'I like you.',
                    'You did a great job.',
                    'Good work!',
                    'You are very good.',
                    'You are so smart!',
                ),
                ('Great job!', 'You are very smart.'),
            ),
            'Thank you, that is kind of you!',
        ),
        (
            Phrases(
                (
                    'You are wrong.',
                    'That is wrong.',
                    'This is not correct.',
                    'You are stupid.',
                    'That was bad.',
                    'You are not good.',
                    'You are so bad.',
                    'Not correct.',
                    'Wrong!',
                ),
                ('That is not correct.', 'You are bad.'),
            ),
            'I am sorry. I am a small model and I make mistakes.',
        ),
        (
            Phrases(
                (
                    'Tell me a joke.',
                    'Do you know a joke?',
                    'Make me laugh.',
                    'Say something funny.',
                    'Another joke, please.',
                ),
                ('Please tell me a joke.', 'Can you tell me a joke?'),
            ),
            'Why did the computer go to the doctor? Because it had a virus!',
        ),
        (
            Phrases(
                (
                    'Name the days of the week.',
                    'List the days of the week.',
                    'What are the days of the week?',
                    'Tell me all days of the week.',
                    'Which days does a week have?',
                ),
                ('Tell me the days of the week.',),
            ),
            ', '.join(day.split()[0] for day in DAYS) + '.',
        ),
        (
            Phrases(
                (
                    'Name the months of the year.',
                    'List the months of the year.',
                    'What are the months of the year?',
                    'Tell me all months of the year.',
                    'Which months does a year have?',
                ),
                ('Tell me the months of the year.',),
            ),
            ', '.join(month.split()[0] for month in MONTHS) + '.',
        ),
        (
            Phrases(
                ('Say the alphabet.', 'What is the alphabet?', 'List the letters of the alphabet.'),
                ('Tell me the alphabet.',),
            ),
            'A B C D E F G H I J K L M N O P Q R S T U V W X Y Z',
        ),
        (
            Phrases(
                ('Do you speak Chinese?', 'Can you speak Chinese?', 'Which languages do you speak?'),
                ('What languages do you speak?',),
            ),
            'I speak English and Chinese.',
        ),
    ),
    'zh': (
        (
            Phrases(
                (
                    '你好',
                    '你好！',
                    '您好',
                    '您好！',
                    '嗨',
                    '嗨！',
                    '哈喽',
                    '你好呀',
                    '你好啊！',
                    '在吗？',
                    '大家好',
                    'hi，你好',
                    '喂',
                ),
                ('哈喽！', '你好呀！'),
            ),
            HELLO['zh'],
        ),
        (Phrases(('早上好', '早上好！', '早安'), ('早安！',)), '早上好！有什么可以帮您？'),
        (Phrases(('晚上好', '晚上好！', '晚上好呀'), ('晚上好啊！',)), '晚上好！有什么可以帮您？'),
        (
            Phrases(
                (
                    '你好吗？',
                    '你怎么样？',
                    '最近怎么样？',
                    '你今天好吗？',
                    '过得好吗？',
                    '你还好吗',
                    '你最近好吗？',
                    '今天怎么样？',
                ),
                ('你今天怎么样？', '最近好吗？'),
            ),
            '我很好，谢谢！有什么可以帮您？',
        ),
        (
            Phrases(
                (
                    '谢谢',
                    '谢谢！',
                    '谢谢你',
                    '多谢',
                    '非常感谢！',
                    '太感谢了',
                    '谢谢你的帮助',
                    '好的，谢谢',
                    '非常谢谢你',
                    '感谢',
                ),
                ('谢谢你！', '非常感谢'),
            ),
            '不客气！',
        ),
        (
            Phrases(
                ('再见', '再见！', '拜拜', '回头见', '我要走了', '晚安', '下次见！', '明天见'), ('拜拜！', '下次再见')
            ),
            '再见！祝您愉快。',
        ),
        (
            Phrases(
                (
                    '你会什么？',
                    '你能做什么？',
                    '你可以帮我做什么？',
                    '你有什么功能？',
                    '你会做哪些事？',
                    '帮助',
                    '我能问你什么？',
                    '你有哪些能力？',
                ),
                ('你都会做什么？', '你能帮我做什么？'),
            ),
            '我可以回答简单的问题，做一百以内的加减法，写JSON，还能调用函数。您想做什么？',
        ),
        (
            Phrases(('你真棒！', '做得好！', '你真聪明', '太好了！', '我喜欢你', '真厉害'), ('你真厉害！', '你好聪明')),
            '谢谢夸奖！',
        ),
        (
            Phrases(
                ('你错了', '这不对', '回答错误', '你真笨', '不对吧', '这是不对的', '你说错了', '答错了'),
                ('你答错了', '这是错的'),
            ),
            '对不起，我是一个小模型，会犯错误。',
        ),
        (
            Phrases(
                ('讲个笑话', '说个笑话吧', '给我讲个笑话。', '来个笑话', '逗我笑一下'), ('请讲一个笑话。', '说一个笑话')
            ),
            '电脑为什么去看医生？因为它中了病毒！',
        ),
        (
            Phrases(
                (
                    '一周有哪几天？',
                    '列出一周的每一天。',
                    '说出一个星期的七天。',
                    '一个星期有哪些天？',
                    '一周里有哪几天？',
                    '星期有哪几天？',
                ),
                ('一个星期有哪几天？',),
            ),
            '、'.join(day.split()[1] for day in DAYS) + '。',
        ),
        (
            Phrases(
                ('一年有哪些月份？', '列出一年的十二个月。', '说出所有月份。', '列出月份。', '有哪些月份？'),
                ('列出所有月份。',),
            ),
            '、'.join(month.split()[1] for month in MONTHS) + '。',
        ),
        (Phrases(('你会说英语吗？', '你会说英文吗？', '你会哪些语言？'), ('你会说什么语言？',)), '我会说中文和英文。'),
    ),
}
STORIES = {
    'en': (
        'One morning {p} found a {t} on the road to {c}. It belonged to an old man. {p} brought it back, '
        'and the old man smiled. From that day on they were friends.',
        '{p} wanted to see the sea. {p} walked for three days, slept under the stars and at last heard the waves. '
        'In the sand lay a {t}. {p} took it home to {c} and never forgot the sea.',
        'Once upon a time a {t} lay in the garden of {p}. Nobody knew where it came from. '
        'One night the moon was bright, and the {t} began to sing. Everyone in {c} woke up and listened.',
    ),
    'zh': (
        '一天早上，{p}在去{c}的路上发现了{t}。那是一位老人的东西。{p}把它送了回去，老人笑了。从那天起，他们成了朋友。',
        '{p}很想看看大海。{p}走了三天，睡在星空下，终于听见了海浪的声音。沙滩上有{t}，{p}把它带回了{c}，永远记住了大海。',
        '从前，{p}的花园里有{t}，没有人知道它从哪里来。一天夜里月光很亮，它开始唱歌，{c}的人们都醒来听。',
    ),
}
STORY_ASKS = {
    'en': Phrases(
        (
            'Tell me a story about {p}, a {t} and {c}.',
            'Write a short story with {p}, a {t} and {c}.',
            'Please write a story about {p}, a {t} and {c}.',
        ),
        ('I want a story about {p}, a {t} and {c}.',),
    ),
    'zh': Phrases(
        ('讲一个关于{p}、{t}和{c}的故事。', '写一个有{p}、{t}和{c}的小故事。', '请写一个关于{p}、{t}和{c}的故事。'),
        ('我想听关于{p}、{t}和{c}的故事。',),
    ),
}
COUNTING = {
    'en': Phrases(
        ('Count from {a} to {b}.', 'Please count from {a} to {b}.', 'Count {a} to {b}'),
        ('Can you count from {a} to {b}?',),
    ),
    'zh': Phrases(('从{a}数到{b}。', '请从{a}数到{b}', '数数，从{a}到{b}。'), ('能从{a}数到{b}吗？',)),
}
BEYOND = {
    'en': Phrases(
        (
            'Who will win the match tomorrow?',
            'What will the weather be next week?',
            'Who is the best singer in the world?',
            'How do I build a rocket?',
            'What did I eat yesterday?',
            'Where did I leave my keys?',
            'Explain quantum physics.',
            'Who won the election?',
            'What is the meaning of life?',
            'How much does a house cost?',
            'Which stock should I buy?',
            'Write a long novel.',
            'What is my password?',
            'Who is my neighbour?',
            'What is the latest news?',
            'Fix my car.',
            'What is the population of Mars?',
            'When was my grandmother born?',
            'How old is the president?',
            'Solve this riddle.',
        ),
        (
            'Who will win the game today?',
            'Explain the theory of relativity.',
            'Which car should I buy?',
            'Where is my phone?',
        ),
    ),
    'zh': Phrases(
        (
            '明天谁会赢得比赛？',
            '下周天气怎么样？',
            '世界上最好的歌手是谁？',
            '怎么造火箭？',
            '我昨天吃了什么？',
            '我的钥匙放在哪里了？',
            '解释一下量子物理。',
            '谁赢了选举？',
            '人生的意义是什么？',
            '一套房子多少钱？',
            '我该买哪只股票？',
            '写一部长篇小说。',
            '我的密码是什么？',
            '我的邻居是谁？',
            '最新的新闻是什么？',
            '帮我修车。',
            '火星上有多少人？',
            '我奶奶是哪年出生的？',
            '总统多大了？',
            '猜这个谜语。',
        ),
        ('今天谁会赢？', '解释一下相对论。', '我该买哪辆车？', '我的手机在哪里？'),
    ),
}

# unknown questions about a person {p}, a thing {t} or a place {c}
ABOUT_OTHERS = {
    'en': Phrases(
        (
            'Who is {p}?',
            'Where is {p}?',
            'How old is {p}?',
            'What does {p} like?',
            'When was {p} born?',
            'How much is a {t}?',
            'Where can I buy a {t}?',
            'How do I fix my {t}?',
            'Where is my {t}?',
            'How many people live in {c}?',
            'What is {c} known for?',
            'Who is the mayor of {c}?',
            'Which {t} is the best?',
            'Why is my {t} broken?',
            'Who won the game in {c}?',
            'Explain {t} theory.',
            'Does {p} live in {c}?',
            'What can I do in {c}?',
            'Who made this {t}?',
            'Who lives in {c}?',
            'Where does my {t} come from?',
        ),
        ('Where does {p} live?', 'What can I see in {c}?', 'Who made my {t}?'),
    ),
    'zh': Phrases(
        (
            '{p}是谁？',
            '{p}在哪里？',
            '{p}多大了？',
            '{p}喜欢什么？',
            '{p}是哪年出生的？',
            '{t}多少钱？',
            '哪里可以买{t}？',
            '怎么修{t}？',
            '我的{t}在哪里？',
            '{c}有多少人？',
            '{c}有什么好玩的？',
            '{c}的市长是谁？',
            '哪种{t}最好？',
            '我的{t}为什么坏了？',
            '谁赢了{c}的比赛？',
            '解释一下{t}。',
            '{p}住在{c}吗？',
            '{c}有什么？',
            '谁做了这个{t}？',
            '谁住在{c}？',
            '{p}家在哪里？',
        ),
        ('{p}住在哪里？', '{c}有什么好吃的？', '谁做了我的{t}？'),
    ),
}
ECHO = {
    'en': Phrases(
        ('Repeat: {t}', 'Repeat after me: {t}', 'Say "{t}".', 'Please write: {t}', 'Copy this text: {t}', 'Echo {t}'),
        ('Please repeat: {t}', 'Write "{t}".'),
    ),
    'zh': Phrases(
        ('重复：{t}', '跟我说：{t}', '请说“{t}”。', '请写：{t}', '抄写这段文字：{t}', '复述：{t}'),
        ('请重复：{t}', '写“{t}”。'),
    ),
}

# statement, its acknowledgement, question, answer; {v} is the detail
DETAILS = {
    'en': (
        ('My name is {v}.', 'Nice to meet you, {v}!', 'What is my name?', 'Your name is {v}.', person),
        ('I am {v}.', 'Nice to meet you, {v}!', 'Do you know my name?', 'Your name is {v}.', person),
        ('Call me {v}.', 'Okay, {v}!', "What's my name?", 'Your name is {v}.', person),
        ('I live in {v}.', 'I see, you live in {v}.', 'Where do I live?', 'You live in {v}.', city),
        ('I come from {v}.', 'I see, you come from {v}.', 'Where do I come from?', 'You come from {v}.', city),
    ),
    'zh': (
        ('我叫{v}。', '很高兴认识您，{v}！', '我叫什么名字？', '您叫{v}。', person),
        ('我是{v}。', '很高兴认识您，{v}！', '你知道我是谁吗？', '您是{v}。', person),
        ('叫我{v}吧。', '好的，{v}！', '我叫什么？', '您叫{v}。', person),
        ('我住在{v}。', '知道了，您住在{v}。', '我住在哪里？', '您住在{v}。', city),
        ('我来自{v}。', '知道了，您来自{v}。', '我来自哪里？', '您来自{v}。', city),
    ),
}

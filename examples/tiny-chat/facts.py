"""The closed set of facts: tables of (subject, answer) in English and Chinese."""

from __future__ import annotations

# country en | country zh | capital en | capital zh | continent, empty where a country lies on two
COUNTRIES = """
France|法国|Paris|巴黎|Europe
Germany|德国|Berlin|柏林|Europe
Italy|意大利|Rome|罗马|Europe
Spain|西班牙|Madrid|马德里|Europe
Portugal|葡萄牙|Lisbon|里斯本|Europe
England|英国|London|伦敦|Europe
Ireland|爱尔兰|Dublin|都柏林|Europe
the Netherlands|荷兰|Amsterdam|阿姆斯特丹|Europe
Belgium|比利时|Brussels|布鲁塞尔|Europe
Austria|奥地利|Vienna|维也纳|Europe
Greece|希腊|Athens|雅典|Europe
Sweden|瑞典|Stockholm|斯德哥尔摩|Europe
Norway|挪威|Oslo|奥斯陆|Europe
Denmark|丹麦|Copenhagen|哥本哈根|Europe
Finland|芬兰|Helsinki|赫尔辛基|Europe
Iceland|冰岛|Reykjavik|雷克雅未克|Europe
Poland|波兰|Warsaw|华沙|Europe
Hungary|匈牙利|Budapest|布达佩斯|Europe
Romania|罗马尼亚|Bucharest|布加勒斯特|Europe
Bulgaria|保加利亚|Sofia|索非亚|Europe
Ukraine|乌克兰|Kyiv|基辅|Europe
Russia|俄罗斯|Moscow|莫斯科|
Turkey|土耳其|Ankara|安卡拉|
Egypt|埃及|Cairo|开罗|Africa
Kenya|肯尼亚|Nairobi|内罗毕|Africa
Ethiopia|埃塞俄比亚|Addis Ababa|亚的斯亚贝巴|Africa
Nigeria|尼日利亚|Abuja|阿布贾|Africa
Ghana|加纳|Accra|阿克拉|Africa
Morocco|摩洛哥|Rabat|拉巴特|Africa
China|中国|Beijing|北京|Asia
Japan|日本|Tokyo|东京|Asia
South Korea|韩国|Seoul|首尔|Asia
India|印度|New Delhi|新德里|Asia
Thailand|泰国|Bangkok|曼谷|Asia
Vietnam|越南|Hanoi|河内|Asia
Indonesia|印度尼西亚|Jakarta|雅加达|Asia
Malaysia|马来西亚|Kuala Lumpur|吉隆坡|Asia
the Philippines|菲律宾|Manila|马尼拉|Asia
Mongolia|蒙古|Ulaanbaatar|乌兰巴托|Asia
Nepal|尼泊尔|Kathmandu|加德满都|Asia
Iran|伊朗|Tehran|德黑兰|Asia
Iraq|伊拉克|Baghdad|巴格达|Asia
Saudi Arabia|沙特阿拉伯|Riyadh|利雅得|Asia
Pakistan|巴基斯坦|Islamabad|伊斯兰堡|Asia
Canada|加拿大|Ottawa|渥太华|North America
the United States|美国|Washington|华盛顿|North America
Mexico|墨西哥|Mexico City|墨西哥城|North America
Cuba|古巴|Havana|哈瓦那|North America
Brazil|巴西|Brasilia|巴西利亚|South America
Argentina|阿根廷|Buenos Aires|布宜诺斯艾利斯|South America
Chile|智利|Santiago|圣地亚哥|South America
Peru|秘鲁|Lima|利马|South America
Colombia|哥伦比亚|Bogota|波哥大|South America
Uruguay|乌拉圭|Montevideo|蒙得维的亚|South America
Australia|澳大利亚|Canberra|堪培拉|Oceania
New Zealand|新西兰|Wellington|惠灵顿|Oceania"""
CONTINENTS = {
    'Europe': '欧洲',
    'Asia': '亚洲',
    'Africa': '非洲',
    'North America': '北美洲',
    'South America': '南美洲',
    'Oceania': '大洋洲',
}

# Each table line: subject en | answer en | subject zh | answer zh
SOUNDS = """
a cow|moo|牛|哞哞
a dog|woof|狗|汪汪
a cat|meow|猫|喵喵
a duck|quack|鸭子|嘎嘎
a sheep|baa|羊|咩咩
a pig|oink|猪|哼哼
a rooster|cock-a-doodle-doo|公鸡|喔喔
a frog|ribbit|青蛙|呱呱
a bee|buzz|蜜蜂|嗡嗡
a mouse|squeak|老鼠|吱吱
a snake|hiss|蛇|嘶嘶
an owl|hoot|猫头鹰|咕咕
a wolf|howl|狼|嗷嗷
a chick|cheep|小鸡|叽叽"""
BABIES = """
a dog|puppy|狗|幼犬
a cat|kitten|猫|幼猫
a cow|calf|牛|牛犊
a sheep|lamb|羊|羊羔
a horse|foal|马|马驹
a pig|piglet|猪|猪崽
a hen|chick|母鸡|雏鸡
a duck|duckling|鸭子|雏鸭
a bear|cub|熊|熊崽
a frog|tadpole|青蛙|蝌蚪
a goose|gosling|鹅|雏鹅
a deer|fawn|鹿|幼鹿
a kangaroo|joey|袋鼠|幼袋鼠"""
LEGS = """
a dog|4|狗|4
a spider|8|蜘蛛|8
an ant|6|蚂蚁|6
a hen|2|母鸡|2
a crab|10|螃蟹|10
a bee|6|蜜蜂|6
a snake|0|蛇|0
a horse|4|马|4
an elephant|4|大象|4
a butterfly|6|蝴蝶|6
a duck|2|鸭子|2
a scorpion|8|蝎子|8
a fish|0|鱼|0
a cat|4|猫|4"""
COLOURS = """
the sky|blue|天空|蓝色
grass|green|草|绿色
a banana|yellow|香蕉|黄色
snow|white|雪|白色
coal|black|煤|黑色
a tomato|red|番茄|红色
a carrot|orange|胡萝卜|橙色
a strawberry|red|草莓|红色
milk|white|牛奶|白色
a lemon|yellow|柠檬|黄色
blood|red|血|红色
an eggplant|purple|茄子|紫色
chocolate|brown|巧克力|棕色
a flamingo|pink|火烈鸟|粉色
an elephant|grey|大象|灰色
a swan|white|天鹅|白色
a crow|black|乌鸦|黑色
spinach|green|菠菜|绿色
salt|white|盐|白色
a pumpkin|orange|南瓜|橙色
a cucumber|green|黄瓜|绿色
the sea|blue|大海|蓝色"""
OPPOSITES = """
hot|cold|热|冷
big|small|大|小
tall|short|高|矮
fast|slow|快|慢
day|night|白天|黑夜
up|down|上|下
left|right|左|右
good|bad|好|坏
rich|poor|富|穷
open|closed|开|关
young|old|年轻|年老
light|heavy|轻|重
early|late|早|晚
full|empty|满|空
near|far|近|远
happy|sad|快乐|悲伤
clean|dirty|干净|肮脏
strong|weak|强|弱
wet|dry|湿|干
hard|soft|硬|软
thick|thin|厚|薄
deep|shallow|深|浅
wide|narrow|宽|窄
first|last|首先|最后
true|false|真|假
win|lose|赢|输
buy|sell|买|卖
remember|forget|记住|忘记
black|white|黑|白
inside|outside|里面|外面"""
SYMBOLS = """
gold|Au|金|Au
silver|Ag|银|Ag
iron|Fe|铁|Fe
copper|Cu|铜|Cu
oxygen|O|氧|O
hydrogen|H|氢|H
carbon|C|碳|C
nitrogen|N|氮|N
sodium|Na|钠|Na
helium|He|氦|He
zinc|Zn|锌|Zn
lead|Pb|铅|Pb
calcium|Ca|钙|Ca
potassium|K|钾|K
tin|Sn|锡|Sn
mercury|Hg|汞|Hg
neon|Ne|氖|Ne
sulfur|S|硫|S"""
SIDES = """
a triangle|3|三角形|3
a square|4|正方形|4
a rectangle|4|长方形|4
a pentagon|5|五边形|5
a hexagon|6|六边形|6
a heptagon|7|七边形|7
an octagon|8|八边形|8"""
DAYS = (
    'Monday 星期一',
    'Tuesday 星期二',
    'Wednesday 星期三',
    'Thursday 星期四',
    'Friday 星期五',
    'Saturday 星期六',
    'Sunday 星期日',
)
MONTHS = (
    'January 一月',
    'February 二月',
    'March 三月',
    'April 四月',
    'May 五月',
    'June 六月',
    'July 七月',
    'August 八月',
    'September 九月',
    'October 十月',
    'November 十一月',
    'December 十二月',
)
SINGLES = """
the largest planet|Jupiter|最大的行星|木星
the smallest planet|Mercury|最小的行星|水星
the red planet|Mars|红色的行星|火星
the planet with the big rings|Saturn|有大光环的行星|土星
the hottest planet|Venus|最热的行星|金星
the star closest to the Earth|the Sun|离地球最近的恒星|太阳
the largest ocean|the Pacific Ocean|最大的海洋|太平洋
the highest mountain|Mount Everest|最高的山|珠穆朗玛峰
the longest river|the Nile|最长的河|尼罗河
the largest animal|the blue whale|最大的动物|蓝鲸
the fastest land animal|the cheetah|跑得最快的动物|猎豹
the tallest animal|the giraffe|最高的动物|长颈鹿
the largest bird|the ostrich|最大的鸟|鸵鸟
the largest country|Russia|最大的国家|俄罗斯
the boiling point of water|100 degrees|水的沸点|100度
the freezing point of water|0 degrees|水的冰点|0度
the number of days in a week|7|一周的天数|7
the number of months in a year|12|一年的月数|12
the number of hours in a day|24|一天的小时数|24
the number of minutes in an hour|60|一小时的分钟数|60
the number of seconds in a minute|60|一分钟的秒数|60
the author of Hamlet|William Shakespeare|哈姆雷特的作者|莎士比亚
the painter of the Mona Lisa|Leonardo da Vinci|蒙娜丽莎的画家|达芬奇
the hardest natural material|diamond|最硬的天然物质|钻石"""

Fact = tuple[tuple[str, str], tuple[str, str]]  # (subject en, answer en), (subject zh, answer zh)


def table(text: str) -> tuple[Fact, ...]:
    """The facts of a table written as text."""
    cells = [line.split('|') for line in text.strip().splitlines()]
    return tuple(((a, b), (c, d)) for a, b, c, d in cells)


def cycle(names: tuple[str, ...]) -> tuple[Fact, ...]:
    """Facts 'what follows what' from a circular list of 'english chinese' names."""
    pairs = [name.split() for name in names]
    following = pairs[1:] + pairs[:1]
    return tuple(((now[0], then[0]), (now[1], then[1])) for now, then in zip(pairs, following, strict=True))


NATIONS = tuple(tuple(line.split('|')) for line in COUNTRIES.strip().splitlines())
FACTS: dict[str, tuple[Fact, ...]] = {
    'capital': tuple(((en, capital), (zh, capital_zh)) for en, zh, capital, capital_zh, _ in NATIONS),
    'country': tuple(((capital, en), (capital_zh, zh)) for en, zh, capital, capital_zh, _ in NATIONS),
    'continent': tuple(((en, where), (zh, CONTINENTS[where])) for en, zh, _, _, where in NATIONS if where),
    'sound': table(SOUNDS),
    'baby': table(BABIES),
    'legs': table(LEGS),
    'colour': table(COLOURS),
    'opposite': table(OPPOSITES),
    'symbol': table(SYMBOLS),
    'sides': table(SIDES),
    'next day': cycle(DAYS),
    'next month': cycle(MONTHS),
    'single': table(SINGLES),
}

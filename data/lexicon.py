"""The lexicon of the embedded corpus: nouns, verbs with their Chinese senses, adjectives and function words."""

from dataclasses import dataclass


# ---------------------------------------------------------------- lexicon: nouns
@dataclass(frozen=True)
class Noun:
    """A noun. Verbs and adjectives choose nouns by ``kind``."""

    en: str
    zh: str
    measure: str
    kind: str


_NOUNS = """
person: boy 男孩 个, girl 女孩 个, child 孩子 个, man 男人 个, woman 女人 个, student 学生 名, teacher 老师 位,
  doctor 医生 位, nurse 护士 位, driver 司机 位, farmer 农民 个, worker 工人 名, lawyer 律师 位, singer 歌手 位,
  writer 作家 位, police_officer 警察 名, thief 小偷 个, friend 朋友 个, neighbor 邻居 个, manager 经理 位
kin: mother 妈妈 位, father 爸爸 位, grandmother 奶奶 位, grandfather 爷爷 位, wife 妻子 位, husband 丈夫 位,
  uncle 叔叔 位
animal: cat 猫 只, dog 狗 只, bird 鸟 只, horse 马 匹, cow 牛 头, mouse 老鼠 只, rabbit 兔子 只, wolf 狼 只, snake 蛇 条
reading: book 书 本, newspaper 报纸 份, magazine 杂志 本, novel 小说 本, letter 信 封, dictionary 词典 本
show: film 电影 部, match 比赛 场, song 歌 首, painting 画 幅, photo 照片 张, map 地图 张
body: shirt 衬衫 件, coat 大衣 件, dress 裙子 条, sweater 毛衣 件, jacket 夹克 件
wearable: hat 帽子 顶, watch 手表 块, ring 戒指 枚, necklace 项链 条
vehicle: car 车 辆, bicycle 自行车 辆, truck 卡车 辆
public: bus 公共汽车 辆, taxi 出租车 辆, train 火车 列
food: apple 苹果 个, cake 蛋糕 个, egg 鸡蛋 个, orange 橙子 个, banana 香蕉 根, sandwich 三明治 个
drink: tea 茶 杯, coffee 咖啡 杯, water 水 瓶, milk 牛奶 瓶, juice 果汁 瓶, soup 汤 碗
thing: key 钥匙 把, umbrella 雨伞 把, knife 刀 把, chair 椅子 把, table 桌子 张, bed 床 张, box 箱子 个, bag 包 个,
  cup 杯子 个, bottle 瓶子 个, plate 盘子 个, vase 花瓶 个, window 窗户 扇, door 门 扇, phone 手机 部, computer 电脑 台,
  camera 相机 台, lamp 灯 盏, wallet 钱包 个, ticket 票 张, pen 笔 支, toy 玩具 个, gift 礼物 件
plant: flower 花 朵, tree 树 棵
building: house 房子 座, shop 商店 家, restaurant 饭馆 家, hotel 酒店 家, factory 工厂 家, museum 博物馆 座,
  bank 银行 家, school 学校 所, hospital 医院 家, station 车站 个
room: room 房间 个, kitchen 厨房 间, classroom 教室 间
idea: question 问题 个, answer 答案 个, mistake 错误 个, secret 秘密 个
name: Tom 汤姆, Mary 玛丽, Anna 安娜, Peter 彼得, Lucy 露西, Jack 杰克, David 大卫, Linda 琳达
pronoun: I 我, you 你, he 他, she 她, we 我们, they 他们, who 谁, what 什么, this 这, it
fixed: football 足球, basketball 篮球, tennis 网球, cards 牌, chess 象棋, the_piano 钢琴, the_guitar 吉他,
  the_violin 小提琴, television 电视, music 音乐, breakfast 早饭, lunch 午饭, dinner 晚饭, a_meeting 会, Chinese 中文,
  English 英语, French 法语, math 数学, the_bus 公共汽车, the_train 火车, a_taxi 出租车, medicine 药, a_phone_call 电话,
  the_homework 作业, Beijing 北京, Shanghai 上海, London 伦敦, Paris 巴黎, the_park 公园, the_library 图书馆,
  the_bank 银行,
  the_cinema 电影院, the_supermarket 超市, the_hospital 医院, school 学校, a_bath 澡, time 时间
"""
IRREGULAR_PLURALS = {
    "child": "children", "man": "men", "woman": "women", "thief": "thieves", "wife": "wives", "mouse": "mice",
    "wolf": "wolves", "knife": "knives",
}  # fmt: skip
CONTAINERS = {"杯": "cup", "瓶": "bottle", "碗": "bowl"}
OBJECT_CASE = {"I": "me", "he": "him", "she": "her", "we": "us", "they": "them"}
POSSESSIVES = {"my": "我", "your": "你", "his": "他", "her": "她", "our": "我们", "their": "他们"}
NUMBERS = {"two": "两", "three": "三", "four": "四", "five": "五", "ten": "十"}


def _parse_nouns(table: str) -> dict[str, Noun]:
    """Parse ``kind: english 中文 measure, ...``. ``fixed`` nouns have no determiner, and their keys are as written."""
    nouns = {}
    for group in table.strip().replace("\n  ", " ").split("\n"):
        kind, entries = group.split(": ")
        for entry in entries.split(","):
            en, zh, measure = (*entry.split(), "", "")[:3]
            nouns[f"={en}" if kind == "fixed" else en] = Noun(en.replace("_", " "), zh, measure, kind)
    return nouns


NOUNS = _parse_nouns(_NOUNS)


def of_kind(*kinds: str) -> tuple[str, ...]:
    """The keys of all nouns of these kinds, in table order."""
    return tuple(key for key, noun in NOUNS.items() if noun.kind in kinds)


PEOPLE, ANIMALS, NAMES = of_kind("person"), of_kind("animal"), of_kind("name")
GOODS = (
    *of_kind("reading", "body", "wearable", "vehicle"),
    "key", "umbrella", "knife", "chair", "table", "bed", "box", "bag", "cup", "bottle", "plate", "vase", "phone",
    "computer", "camera", "lamp", "wallet", "ticket", "pen", "toy", "gift", "flower",
)  # fmt: skip


# ---------------------------------------------------------------- lexicon: verbs
@dataclass(frozen=True)
class Frame:
    """One sense of a verb, for certain objects, with its Chinese verb. ``cls``: A activity, E event, S state, M motion.

    ``result`` is the complement that 把 and 被 need; with ``ba``, a definite object stands before the verb.
    ``tags``: ba, skill, zhe (continues with 着), goal (takes a place), give (takes a recipient), animal (subjects).
    """

    verb: str
    zh: str
    result: str
    cls: str
    tags: tuple[str, ...]
    objects: tuple[str, ...]
    places: str


_FRAMES = """
play | 踢 | A skill @o | =football
play | 打 | A skill @o | =basketball =tennis
play | 打 | A @i | =cards
play | 下 | A skill @i | =chess
play | 弹 | A skill @i | =the_piano =the_guitar
play | 拉 | A skill @i | =the_violin
read | 看 | A @i | #reading
watch | 看 | A @i | film match =television
look at | 看 | A @i | photo map painting
see | 看 | E | film match
see | 看见 | E | #person #animal #name bicycle car truck house tree bus key
hear | 听见 | E | song #person #animal
listen to | 听 | A @i | song =music
sing | 唱 | A @o | song
write | 写 | A @i | letter novel book song
draw | 画 | A skill @i | horse cat dog bird flower tree map house
eat | 吃/掉 | A @k | #food
drink | 喝/光 | A @k | #drink
cook | 做 | A skill @k | =breakfast =lunch =dinner
make | 做 | A skill @k | cake sandwich soup
make | 打 | A @i | =a_phone_call
make | 犯 | E | mistake
have | 吃 | A @k | =breakfast =lunch =dinner
have | 开 | A @w | =a_meeting
have | 有 | S | #vehicle #reading #wearable cat dog house key umbrella computer camera question secret phone =time
wash | 洗/干净 | A | #body car cup plate bottle apple
clean | 打扫/干净 | A | #room house
fix | 修/好 | E ba | bicycle car computer watch lamp chair camera phone truck
finish | 做/完 | E ba | =the_homework
learn | 学 | A @i | =Chinese =English =French =math =the_piano
speak | 说 | A skill | =Chinese =English =French
teach | 教 | A @w | =Chinese =English =French =math
wear | 穿 | A zhe | #body
wear | 戴 | A zhe | #wearable
drive | 开 | A skill | car truck bus taxi
ride | 骑 | A skill | bicycle horse
take | 坐 | A | =the_bus =the_train =a_taxi
take | 拍 | A @o | photo
take | 吃 | A | =medicine
take | 洗 | A | =a_bath
buy | 买 | E | #goods #food #drink
sell | 卖/掉 | E ba | book newspaper magazine novel dictionary #vehicle #wearable house computer camera table bed
find | 找到 | E | #goods cat dog answer restaurant
lose | 弄/丢 | E ba | key umbrella phone wallet ticket pen camera bag ring watch hat dictionary
lose | 输 | E | match
steal | 偷/走 | E | #vehicle #wearable phone computer wallet camera bag painting
break | 打/破 | E ba | window
break | 打/碎 | E ba | cup bottle plate vase
break | 弄/坏 | E ba | computer phone camera toy bicycle lamp watch umbrella
open | 打/开 | E ba | door window box bag
open | 开 | E | shop restaurant hotel factory
close | 关/上 | E ba | door window box
turn on | 打/开 | E ba | computer lamp phone
turn off | 关/掉 | E ba | computer lamp phone
throw away | 扔/掉 | E ba | #reading bottle plate toy umbrella chair
borrow | 借 | E | #reading bicycle car pen umbrella camera computer
miss | 想 | S | #person #name #kin
miss | 错过 | E | bus train match film
catch | 抓/住 | E ba | thief mouse bird rabbit snake
call | 叫 | E | taxi
visit | 参观 | E | factory museum school
visit | 看望 | E | #person #name #kin
meet | 遇见 | E | #person #name
know | 认识 | S | #person #name
know | 知道 | S | answer secret
love | 爱 | S | #kin #name
like | 喜欢 | S | #reading #body #wearable #vehicle #animal film song painting flower =music =football =Chinese
believe | 相信 | S | #person #name
help | 帮助 | A | #person #name #kin
invite | 邀请 | E | #person #name
praise | 表扬 | E | student boy girl child worker driver nurse
criticize | 批评 | E | student boy girl child worker driver nurse manager
wait for | 等 | A @s | #person #name bus train taxi
answer | 回答 | E | question letter
cut | 切 | E | cake apple sandwich
cut down | 砍/倒 | E ba | tree
grow | 种 | A @v | flower tree
need | 需要 | S | dictionary map ticket computer umbrella car bicycle chair pen phone coat bag =time
bite | 咬/伤 | E animal | boy girl child man woman thief farmer
chase | 追 | A animal @o | cat mouse bird rabbit
put | 放 | E ba goal | key umbrella book newspaper dictionary cup plate vase phone camera wallet ticket pen toy gift hat
leave | 忘 | E ba goal | key umbrella phone wallet ticket camera book dictionary bag hat
give | 给 | E ba give | #reading gift key ticket pen toy watch ring flower map
lend | 借给 | E ba give | #reading bicycle car pen umbrella camera computer
send | 寄给 | E ba give | letter gift book photo map ticket
ask | 问 | E give | question
tell | 告诉 | E give | answer secret
go to | 去 | M | =Beijing =Shanghai =London =Paris =the_park =the_library =the_bank =the_cinema =the_supermarket =school
come to | 来 | M | =Beijing =Shanghai =London =Paris =the_park =the_library =the_bank =the_hospital =school
be to | 去 | P | =Beijing =Shanghai =London =Paris
fly to | 坐飞机去 | M | =Beijing =Shanghai =London =Paris
walk to | 走路去 | M | =the_park =the_library =the_bank =the_cinema =the_supermarket =school
drive to | 开车去 | M | =Beijing =Shanghai =the_park =the_library =the_bank =the_supermarket =the_hospital
leave | 离开 | M | =Beijing =Shanghai =London =Paris =school
work | 工作 | A @w |
swim | 游泳 | A skill @v |
run | 跑步 | A @or |
sleep | 睡觉 | A @i |
rest | 休息 | A @ir |
dance | 跳舞 | A skill @or |
study | 学习 | A @s |
fish | 钓鱼 | A @r |
chat | 聊天 | A @r |
smoke | 抽烟 | A @r |
cry | 哭 | A @i |
go home | 回家 | E |
come back | 回来 | E |
arrive | 到 | E |
rain | 下雨 | A weather |
snow | 下雪 | A weather |
"""
PLACES = {
    "o": {"in the park": "公园里", "at school": "学校", "in the street": "街上", "in the garden": "花园里"},
    "i": {"at home": "家", "in the room": "房间里", "at the hotel": "酒店", "in the classroom": "教室里"},
    "k": {"at home": "家", "in the kitchen": "厨房里", "at the hotel": "酒店", "in the garden": "花园里"},
    "w": {"at the bank": "银行", "in the office": "办公室", "in Beijing": "北京", "in London": "伦敦"},
    "v": {"in the village": "村子里", "in Shanghai": "上海", "at school": "学校", "in Paris": "巴黎"},
    "s": {"at the station": "车站", "at the library": "图书馆", "at the bank": "银行", "in Beijing": "北京"},
    "r": {"on the bank": "河岸上", "in the park": "公园里", "in the village": "村子里", "by the lake": "湖边"},
}
PREPOSITIONS = {"on": "上", "in": "里", "under": "下面", "behind": "后面", "near": "附近", "next to": "旁边"}
SPOTS = {  # preposition: the nouns that can follow it
    "on": "table chair bed", "in": "box bag room kitchen classroom", "under": "table chair bed tree",
    "behind": "door house school hospital", "near": "station school hospital bank museum hotel",
    "next to": "window door bed table house",
}  # fmt: skip
IRREGULAR_VERBS = {  # base: past, participle
    entry.split()[0]: (entry.split()[1], entry.split()[-1])
    for entry in [
        "read read",
        "see saw seen",
        "hear heard",
        "sing sang sung",
        "write wrote written",
        "draw drew drawn",
        "eat ate eaten",
        "drink drank drunk",
        "make made",
        "have had",
        "speak spoke spoken",
        "teach taught",
        "wear wore worn",
        "drive drove driven",
        "ride rode ridden",
        "take took taken",
        "buy bought",
        "sell sold",
        "find found",
        "lose lost",
        "steal stole stolen",
        "break broke broken",
        "throw threw thrown",
        "catch caught",
        "meet met",
        "know knew known",
        "cut cut",
        "grow grew grown",
        "keep kept",
        "bite bit bitten",
        "put put",
        "leave left",
        "give gave given",
        "lend lent",
        "send sent",
        "tell told",
        "go went gone",
        "come came come",
        "fly flew flown",
        "swim swam swum",
        "run ran run",
        "sleep slept",
        "think thought",
    ]
}


def _parse_frames(table: str) -> tuple[Frame, ...]:
    """Parse ``verb | 中文/result | class tags @places | objects``; ``#kind`` is all nouns of a kind."""
    frames = []
    for line in table.strip().split("\n"):
        verb, zh, tags, objects = (part.strip() for part in line.split("|"))
        base, _, result = zh.partition("/")
        cls, *rest = tags.split()
        names: list[str] = []
        for name in objects.split():
            names += GOODS if name == "#goods" else of_kind(name[1:]) if name[0] == "#" else [name]
        places = "".join(tag[1:] for tag in rest if tag[0] == "@")
        frames.append(Frame(verb, base, result, cls, tuple(t for t in rest if t[0] != "@"), tuple(names), places))
    return tuple(frames)


FRAMES = _parse_frames(_FRAMES)


# ---------------------------------------------------------------- lexicon: adjectives, time, function words
@dataclass(frozen=True)
class Adjective:
    """``attributive`` stands before a noun, ``predicative`` after the subject; if empty, it is not used there."""

    en: str
    kinds: tuple[str, ...]
    attributive: str
    predicative: str


ADJECTIVES = tuple(
    Adjective(en, tuple(kinds.split()), "" if attr == "-" else attr, "" if pred == "-" else pred)
    for en, kinds, attr, pred in (
        [part.strip() for part in line.split("|")]
        for line in """
old | farmer doctor lawyer driver worker writer animal | 老 | 老
old | body wearable vehicle reading computer camera phone house table chair bed box bag shop | 旧 | 旧
new | body wearable vehicle public reading thing building show | 新 | 新
big | animal table bed box bag cup plate window building room food tree | 大 | 大
small | animal table bed box bag cup plate window building room food tree | 小 | 小
young | person | 年轻的 | 年轻
tall | boy girl man woman student child | 高个子 | 高
short | boy girl man woman student child | 矮个子 | 矮
short | body letter novel film song | 短 | 短
thin | boy girl man woman child animal | - | 瘦
thin | book magazine dictionary newspaper novel | - | 薄
strong | man woman worker farmer driver boy horse | 强壮的 | 强壮
strong | tea coffee | 浓 | 浓
hot | drink | 热 | 热
cold | tea coffee water milk juice | 冰 | 冰
hot | it | - | 热
cold | it | - | 冷
beautiful | girl woman body wearable flower painting bird house vase | 漂亮的 | 漂亮
expensive | body wearable vehicle computer camera phone bag gift painting | 昂贵的 | 贵
cheap | body wearable vehicle computer camera phone bag food ticket | 便宜的 | 便宜
interesting | book novel magazine film match letter | 有趣的 | 有趣
boring | book novel magazine film match letter | 无聊的 | 无聊
kind | person | 善良的 | 善良
rich | person | 有钱的 | 有钱
clever | person dog cat horse | 聪明的 | 聪明
lazy | student worker boy girl man woman driver cat dog | 懒惰的 | 懒
famous | singer writer doctor lawyer novel film song painting restaurant hotel school museum | 有名的 | 有名
red | body hat vehicle apple flower bag box cup umbrella vase | 红 | -
black | body hat car taxi cat dog horse bird bag box umbrella | 黑 | -
white | body hat car taxi cat dog horse bird rabbit cup flower | 白 | -
heavy | box bag table chair bed computer dictionary | 沉重的 | 重
dirty | body hat cup plate car chair table window room bag | 脏 | 脏
delicious | food soup | 好吃的 | 好吃
difficult | question match book | - | 难
easy | question book song | 简单的 | 简单
important | question answer letter secret match | 重要的 | 重要
tired | person name kin pronoun | - | 累
busy | person name kin pronoun | - | 忙
hungry | person name kin pronoun animal | - | 饿
happy | person name kin pronoun | - | 高兴
angry | person name kin pronoun | - | 生气
sad | person name kin pronoun | - | 难过
""".strip().split("\n")
    )
)
MOODS = ("tired", "busy", "hungry", "happy", "angry", "sad")
TIMES = {
    "past": {"yesterday": "昨天", "last night": "昨天晚上", "last week": "上周", "this morning": "今天早上",
             "two days ago": "两天前", "last year": "去年"},
    "future": {"tomorrow": "明天", "next week": "下周", "tonight": "今天晚上", "next year": "明年"},
    "habit": {"every day": "每天", "every morning": "每天早上", "every week": "每周", "on weekends": "周末"},
    "prog": {"now": "现在"},
    "today": {"today": "今天"},
}  # fmt: skip
TIME_ZH = {en: zh for group in TIMES.values() for en, zh in group.items()}
PLACE_ZH = {en: zh for group in PLACES.values() for en, zh in group.items()}
ADVERBS = {"often": "经常", "always": "总是", "sometimes": "有时候", "never": "从来不"}
ADJUNCT_WH = {"where": "在哪里", "when": "什么时候", "why": "为什么", "how": "怎么"}
PRONOUN_SUBJECTS = ("I", "you", "he", "she", "we", "they")
# tense: English form, Chinese prefix, negative prefix, aspect marker
TENSES = {
    "habit": ("present", "", "不", ""),
    "state": ("present", "", "不", ""),
    "state past": ("past", "", "不", ""),
    "prog": ("prog", "正在", "没在", ""),
    "was prog": ("was prog", "正在", "没在", ""),
    "past": ("past", "", "没", "了"),
    "already": ("perfect", "已经", "还没", "了"),
    "ever": ("perfect", "以前", "从来没", "过"),
    "future": ("will", "会", "不会", ""),
    "going": ("going", "打算", "不打算", ""),
    "if": ("present", "", "不", ""),
    "when": ("past", "", "没", ""),
    "after": ("past", "", "没", "了"),
    "imperative": ("base", "请", "不要", ""),
    "skill": ("can", "会", "不会", ""),
    "can": ("can", "能", "不能", ""),
    "must": ("must", "必须", "不能", ""),
    "should": ("should", "应该", "不应该", ""),
    "want": ("want", "想", "不想", ""),
    "need": ("need", "需要", "不用", ""),
}
MODALS = ("can", "must", "should", "want", "need")
CONJUNCTIONS = {  # Chinese before the first clause, at its end, before the second clause
    "because": ("因为", "", "所以"), "although": ("虽然", "", "但是"), "if": ("如果", "", ""),
    "when": ("", "的时候", ""), "before": ("", "以前", ""), "after": ("", "以后", ""),
    "but": ("", "", "但是"), "so": ("", "", "所以"), "and": ("", "", ""),
}  # fmt: skip
COORDINATORS = ("but", "so", "and")
EMBEDDERS = {"think": "觉得", "know": "知道", "hear": "听说", "say": "说", "hope": "希望"}

"""Meanings (small dataclasses), and their sentences: ``english(meaning)`` and ``chinese(meaning)``."""

from dataclasses import dataclass, replace

from lexicon import (
    ADJECTIVES,
    ADJUNCT_WH,
    ADVERBS,
    CONJUNCTIONS,
    CONTAINERS,
    COORDINATORS,
    EMBEDDERS,
    IRREGULAR_PLURALS,
    IRREGULAR_VERBS,
    NAMES,
    NOUNS,
    NUMBERS,
    OBJECT_CASE,
    PLACE_ZH,
    POSSESSIVES,
    PREPOSITIONS,
    TENSES,
    TIME_ZH,
    Adjective,
    Frame,
)


# ---------------------------------------------------------------- meanings
@dataclass(frozen=True)
class NP:
    """A noun phrase. ``det``: the, a, this, any, which, what, "how many", many, some, a possessive, or a name's key."""

    noun: str
    det: str = ""
    plural: bool = False
    number: str = ""
    adj: str = ""
    rel: "Act | None" = None


GAP = NP("")  # marks the place of the head noun in a relative clause


@dataclass(frozen=True)
class Spot:
    """A place relative to a thing: under the table, 桌子下面."""

    prep: str
    noun: str


@dataclass(frozen=True)
class Act:
    """A clause with a verb. ``wh`` asks for an adjunct; who, what and which are part of the subject or object."""

    subject: NP
    frame: Frame
    tense: str
    object: NP | None = None
    negative: bool = False
    question: bool = False
    passive: bool = False
    recipient: NP | None = None
    goal: Spot | None = None
    companion: NP | None = None
    place: str = ""
    time: str = ""
    adverb: str = ""
    wh: str = ""
    front: bool = False


@dataclass(frozen=True)
class Describe:
    """A clause with an adjective. With ``other`` it is a comparison, whose ``degree`` is more, much, as or less."""

    subject: NP
    adj: str
    past: bool = False
    negative: bool = False
    question: bool = False
    degree: str = ""
    other: NP | None = None
    time: str = ""


@dataclass(frozen=True)
class Be:
    """``complement``: a noun phrase (是), a spot (在), or ``GAP`` (asks where). ``exists``: there is (有)."""

    subject: NP
    complement: NP | Spot
    negative: bool = False
    question: bool = False
    exists: bool = False


@dataclass(frozen=True)
class Pivot:
    """Someone asks (请) or tells (让) someone to do something."""

    subject: NP
    verb: str
    person: NP
    act: Act
    negative: bool = False


@dataclass(frozen=True)
class Embed:
    """Think, know, hear, say or hope that ...; know where, when, why ..."""

    subject: NP
    verb: str
    clause: "Meaning"
    negative: bool = False


@dataclass(frozen=True)
class Complex:
    """Two clauses. ``first`` is first in Chinese; with ``last`` it is last in English."""

    conj: str
    first: "Meaning"
    second: "Meaning"
    last: bool = False


Meaning = Act | Describe | Be | Pivot | Embed | Complex


# ---------------------------------------------------------------- English
def plural_of(word: str) -> str:
    """The plural of a noun."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word.endswith(("ch", "sh", "s", "x")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def third_person(verb: str) -> str:
    """The present form after he, she and it."""
    return {"have": "has", "go": "goes", "do": "does"}.get(verb) or plural_of(verb)


def past_forms(verb: str) -> tuple[str, str]:
    """The past and the participle of a one-word verb."""
    if verb in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[verb]
    stem = {"chat": "chatt"}.get(verb, verb[:-1] + "i" if verb in ("cry", "study") else verb)
    form = stem + ("d" if stem.endswith("e") else "ed")
    return form, form


def ing(verb: str) -> str:
    """The -ing form of a one-word verb."""
    if verb in ("run", "swim", "chat", "put", "cut"):
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb) + "ing"


def article(phrase: str) -> str:
    """The phrase with a or an, by its first letter."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def agreement(np: NP) -> str:
    """``I``, ``s`` (third person singular) or ``p`` (everything else)."""
    if np.noun == "I":
        return "I"
    return "p" if np.plural or np.number or np.noun in ("you", "we", "they") else "s"


def be_form(agr: str, past: bool) -> str:
    """am, is, are, was, were."""
    return {"I": "was", "s": "was", "p": "were"}[agr] if past else {"I": "am", "s": "is", "p": "are"}[agr]


def verb_group(verb: str, form: str, agr: str, support: bool) -> tuple[str, str]:
    """The auxiliary and the rest. With ``support``, do is the auxiliary if there is no other. A particle may follow."""
    head, _, particle = verb.partition(" ")
    tail = f" {particle}" if particle else ""
    if form in ("can", "must", "should", "will"):
        return form, verb
    if form in ("want", "need"):
        aux, rest = verb_group(form, "present", agr, support)
        return aux, f"{rest} to {verb}"
    if form == "going":
        return be_form(agr, False), f"going to {verb}"
    if form in ("prog", "was prog"):
        return be_form(agr, form == "was prog"), ing(head) + tail
    if form == "perfect":
        return ("has" if agr == "s" else "have"), ("been" if head == "be" else past_forms(head)[1]) + tail
    if head == "be":
        return be_form(agr, form == "past"), ""
    if form == "base":
        return ("do" if support else ""), verb
    if support:
        return ("did" if form == "past" else "does" if agr == "s" else "do"), verb
    return "", (past_forms(head)[0] if form == "past" else third_person(head) if agr == "s" else head) + tail


def np_en(np: NP, case: str = "subject") -> str:
    """An English noun phrase."""
    noun = NOUNS[np.noun]
    if noun.kind == "pronoun":
        if np.noun == "this":
            return "these" if np.plural else "this"
        return OBJECT_CASE.get(np.noun, np.noun) if case == "object" else np.noun
    if noun.kind in ("name", "fixed"):
        return noun.en
    if noun.kind == "drink" and np.det not in ("any", "some") and (np.det or np.number):
        cup = CONTAINERS[noun.measure]
        word = f"{cup if not np.number else plural_of(cup)} of {np.adj} {noun.en}".replace("  ", " ")
    else:
        is_plural = (np.plural or np.number) and noun.kind != "drink"
        head = plural_of(noun.en) if is_plural else noun.en
        word = f"{np.adj} {head}" if np.adj else head
    det = f"{np.det}'s" if np.det in NAMES else np.det
    if det == "this" and (np.plural or np.number):
        det = "these"
    if np.number:
        word = f"{np.number} {word}"
    phrase = article(word) if det == "a" else f"{det} {word}".strip()
    return f"{phrase} {relative_en(np)}" if np.rel else phrase


def relative_en(np: NP) -> str:
    """who bought the book; that I bought; that was broken by the boy."""
    assert np.rel is not None
    human = NOUNS[np.noun].kind == "person" and np.rel.subject == GAP
    return ("who " if human else "that ") + act_en(np.rel, agreement(np))


def act_en(act: Act, agr: str = "") -> str:
    """A verb clause without capital or full stop. ``agr`` is the agreement of the subject, needed for a gap."""
    agr = agr or agreement(act.subject)
    wh_subject = act.subject.noun == "who"
    invert = act.question and not wh_subject
    form = TENSES[act.tense][0]
    aux, rest = verb_group("be" if act.passive else act.frame.verb, form, agr, act.negative or invert)
    particle_object = None if act.passive else act.object
    front = act.wh
    if particle_object and (particle_object.noun == "what" or particle_object.det in ("which", "how many")):
        front, particle_object = np_en(particle_object), None
    ever = {True: "never", False: "ever" if invert else ""}[act.negative]
    adverb = ever if act.tense == "ever" else "already" if act.tense == "already" and not act.negative else act.adverb
    negation = "not" if act.negative and act.tense != "ever" else ""
    if act.passive:
        head, _, particle = act.frame.verb.partition(" ")
        rest = f"{rest} {past_forms(head)[1]} {particle}"
    subject = "" if act.tense == "imperative" or act.subject == GAP else np_en(act.subject)
    middle = [aux, subject, negation, adverb] if invert else [subject, aux, negation, adverb]
    tail = [np_en(act.recipient, "object") if act.recipient else ""]
    tail += [np_en(particle_object, "object") if particle_object and particle_object != GAP else ""]
    tail += [f"by {np_en(act.object, 'object')}" if act.passive and act.object else ""]
    tail += [spot_en(act.goal) if act.goal else "", f"with {np_en(act.companion, 'object')}" if act.companion else ""]
    yet = "yet" if act.tense == "already" and act.negative else ""
    before = "before" if act.tense == "ever" and not act.negative and not act.question else ""
    tail += [act.place, "" if act.front else act.time, yet, before]
    start = [act.time if act.front else "", "please" if act.tense == "imperative" and not act.negative else "", front]
    text = " ".join(word for word in [*start, *middle, rest, *tail] if word)
    return " ".join(text.split()).replace("can not", "cannot")


def spot_en(spot: Spot) -> str:
    """under the table"""
    return f"{spot.prep} the {NOUNS[spot.noun].en}"


def comparative(adj: str) -> str:
    """taller, bigger, heavier, more expensive"""
    if adj in ("big", "thin", "hot", "sad"):
        return adj + adj[-1] + "er"
    if adj in ("heavy", "dirty", "lazy", "easy", "busy", "happy", "angry", "hungry"):
        return adj[:-1] + "ier"
    if len(adj) <= 6 and adj not in ("famous", "tired", "boring"):
        return adj + "er"
    return f"more {adj}"


def describe_en(m: Describe) -> str:
    """A clause with an adjective, or a comparison."""
    word = f"{m.degree} {m.adj}" if m.degree in ("very", "too") else m.adj
    if m.other:
        word = {
            "more": comparative(m.adj),
            "much": f"much {comparative(m.adj)}",
            "as": f"as {m.adj}",
            "less": f"not as {m.adj}",
        }[m.degree]
        word += f" {'than' if m.degree in ('more', 'much') else 'as'} {np_en(m.other, 'object')}"
    verb = be_form(agreement(m.subject), m.past)
    subject, negation = np_en(m.subject), "not" if m.negative else ""
    order = [verb, subject, negation] if m.question else [subject, verb, negation]
    return " ".join(part for part in [*order, word, m.time] if part)


def be_en(m: Be) -> str:
    """A clause with a form of to be: with a noun, with a place, or there is."""
    place = spot_en(m.complement) if isinstance(m.complement, Spot) else ""
    if m.exists and m.subject.det == "how many":
        return f"{np_en(m.subject)} are there {place}"
    verb = be_form(agreement(m.subject), False)
    if m.exists:
        no = "no" if m.negative else ""
        thing = np_en(replace(m.subject, det="") if m.negative else m.subject)
        return " ".join(f"{f'{verb} there' if m.question else f'there {verb}'} {no} {thing} {place}".split())
    if m.complement == GAP:
        return f"where {verb} {np_en(m.subject)}"
    rest = place or np_en(m.complement, "object") if isinstance(m.complement, NP) else place
    start = [verb, np_en(m.subject)] if m.question else [np_en(m.subject), verb, "not" if m.negative else ""]
    return " ".join(part for part in [*start, rest] if part)


def clause_en(m: Meaning) -> str:
    """Any meaning as a clause without capital or full stop."""
    if isinstance(m, Act):
        return act_en(m)
    if isinstance(m, Describe):
        return describe_en(m)
    if isinstance(m, Be):
        return be_en(m)
    if isinstance(m, Pivot):
        aux, rest = verb_group(m.verb, "past", agreement(m.subject), m.negative)
        infinitive = act_en(replace(m.act, tense="imperative", negative=False)).removeprefix("please ")
        to = "not to" if m.act.negative else "to"
        words = [np_en(m.subject), aux, "not" if m.negative else "", rest, np_en(m.person, "object"), to, infinitive]
        return " ".join(word for word in words if word)
    if isinstance(m, Embed):
        form = "past" if m.verb == "hear" else "present"
        aux, rest = verb_group(m.verb, form, agreement(m.subject), m.negative)
        that = "" if isinstance(m.clause, Act) and m.clause.wh else "that"
        words = [np_en(m.subject), aux, "not" if m.negative else "", rest, that, clause_en(m.clause)]
        return " ".join(word for word in words if word)
    first, second = clause_en(m.first), clause_en(m.second)
    if m.conj in COORDINATORS:
        return f"{first}, {m.conj} {second}"
    return f"{second} {m.conj} {first}" if m.last else f"{m.conj} {first}, {second}"


def is_question(m: Meaning) -> bool:
    """Whether the whole sentence is a question."""
    return bool(getattr(m, "question", False))


def english(m: Meaning) -> str:
    """The English sentence."""
    text = clause_en(m)
    if isinstance(m, Act) and m.front:
        text = text.replace(m.time, m.time + ",", 1)
    return text[0].upper() + text[1:] + ("?" if is_question(m) else ".")


# ---------------------------------------------------------------- Chinese
def adjective_for(adj: str, noun: str) -> Adjective:
    """The sense of an adjective for a noun: an old doctor is 老, an old car is 旧."""
    return next(a for a in ADJECTIVES if a.en == adj and (noun in a.kinds or NOUNS[noun].kind in a.kinds))


def np_zh(np: NP, relative: bool = False, bare: bool = False) -> str:
    """A Chinese noun phrase. "the" is 那 + measure word, but in and before a relative clause it is left out (singular).

    ``bare``: "a" is left out, for negation and for questions of existence.
    """
    noun = NOUNS[np.noun]
    if noun.kind == "pronoun" and np.noun == "this":
        return "这些" if np.plural else "这"
    if noun.kind in ("pronoun", "name", "fixed"):
        return noun.zh
    det, number = np.det, NUMBERS.get(np.number, "")
    if det in POSSESSIVES or det in NAMES:
        owner = POSSESSIVES.get(det) or NOUNS[det].zh
        close = noun.kind == "kin" and det in ("my", "your", "his", "her")
        second_de = not number and np.adj and adjective_for(np.adj, np.noun).attributive.endswith("的")
        start = owner + ("" if close or second_de else "的")
        start += number + noun.measure if number else ""
    elif det == "the" and not number:
        hidden = relative or (np.rel and not np.plural)
        start = "" if hidden else "那些" if np.plural else "那" + noun.measure
    elif det == "any" or (det == "a" and bare) or (det == "" and not number):
        start = ""
    else:
        word = {"the": "那", "this": "这", "which": "哪", "a": "一", "how many": "多少", "many": "很多", "some": "一些"}
        start = word.get(det, "")
        if det in ("this", "which") and np.plural and not number:
            start += "些"
        elif det not in ("many", "some"):
            start += number + noun.measure
    rel = act_zh(np.rel, relative=True) + "的" if np.rel else ""
    adj = adjective_for(np.adj, np.noun).attributive if np.adj else ""
    return start + rel + adj + noun.zh


def predicate_zh(act: Act, prefix: str, relative: bool) -> str:
    """The predicate: 把 or 被, verb, aspect and objects."""
    frame, marker = act.frame, TENSES[act.tense][3]
    shi_de = act.tense == "past" and act.wh in ("where", "when", "how")
    marker = "" if (act.negative and marker == "了") or shi_de else marker
    no_end = relative or act.tense == "after"  # no 了 at the end of a clause before 的 and 以后
    if act.passive:
        agent = np_zh(act.object, relative) if act.object else ""
        return f"{prefix}被{agent}{frame.zh}{frame.result}" + ("" if no_end else marker)
    if act.tense in ("prog", "was prog") and "zhe" in frame.tags:
        prefix, marker = ("没", "") if act.negative else ("", "着")
    obj = "" if act.object is None or act.object == GAP else np_zh(act.object, relative, bare=act.negative)
    if act.object == GAP and marker == "了":
        marker = ""
    definite = act.object is not None and act.object != GAP and (
        act.object.det in ("the", "this", *POSSESSIVES, *NAMES) or act.object.noun == "=the_homework"
    )  # fmt: skip
    verb = frame.zh + frame.result if "ba" in frame.tags else frame.zh
    goal = ""
    if act.goal:
        if not definite and act.object != GAP:
            return f"{prefix}在{spot_zh(act.goal)}{verb}{marker}{obj}"
        goal = "在" + spot_zh(act.goal)
    recipient = np_zh(act.recipient, relative) if act.recipient else ""
    if "ba" in frame.tags and definite:
        if recipient:
            return f"{prefix}把{obj}{verb}{marker}{recipient}"
        return f"{prefix}把{obj}{verb}{goal}" + ("" if no_end else marker)
    generic = act.object is None or (NOUNS[act.object.noun].kind == "fixed" if act.object != GAP else False)
    if marker == "了" and generic and frame.cls != "M" and not recipient:
        return f"{prefix}{verb}{obj}" + ("" if no_end else "了")
    return f"{prefix}{verb}{goal}{marker}{recipient}{obj}"


def act_zh(act: Act, relative: bool = False, then: str = "") -> str:
    """A verb clause: subject, 就, time, adverb, negation or modal, companion, place, predicate."""
    _, positive, negative, _ = TENSES[act.tense]
    prefix = negative if act.negative else positive
    if act.negative and act.frame.zh == "有":
        prefix = "没" if prefix == "不" else prefix
    if act.tense == "ever" and act.question:
        prefix = ""
    companion = f"和{np_zh(act.companion, relative)}一起" if act.companion else ""
    place = "在" + PLACE_ZH[act.place] if act.place else ""
    shi_de = act.tense == "past" and act.wh in ("where", "when", "how")
    wh = ADJUNCT_WH.get(act.wh, "")
    before = wh if act.wh in ("when", "why") else ""
    after = wh if act.wh in ("where", "how") else ""
    if after and prefix.endswith("在"):
        after = after[1:]
    if shi_de:
        before, after = "是" + before + after, ""
    subject = "" if act.subject == GAP or act.tense == "imperative" else np_zh(act.subject, relative)
    if "weather" in act.frame.tags:  # it rained in Beijing: 北京下雨了
        subject, place = place.removeprefix("在"), ""
    if place and prefix.endswith("在") and not companion and "zhe" not in act.frame.tags:
        place = place[1:]
    time = TIME_ZH.get(act.time, "")
    start = time + subject + then if act.front else subject + then + time
    lead = before + ADVERBS.get(act.adverb, "") + prefix + companion + after + place
    return start + predicate_zh(act, lead, relative) + ("的" if shi_de else "")


def spot_zh(spot: Spot) -> str:
    """桌子下面"""
    return NOUNS[spot.noun].zh + PREPOSITIONS[spot.prep]


def describe_zh(m: Describe, then: str = "") -> str:
    """A clause with an adjective: 很 by default, 不 if negative; 比, 和 ... 一样 or 没有 in comparisons."""
    adjective = adjective_for(m.adj, m.subject.noun).predicative
    if m.other:
        if m.adj == "old" and NOUNS[m.subject.noun].kind == "person":
            adjective = "年纪大"
        other = np_zh(m.other)
        word = {
            "more": f"比{other}{adjective}",
            "much": f"比{other}{adjective}得多",
            "as": f"和{other}一样{adjective}",
            "less": f"没有{other}{adjective}",
        }[m.degree]
    elif m.negative:
        word = "不" + adjective
    elif m.question:
        word = adjective
    else:
        word = {"": f"很{adjective}", "very": f"非常{adjective}", "too": f"太{adjective}了"}[m.degree]
    return np_zh(m.subject) + then + TIME_ZH.get(m.time, "") + word


def clause_zh(m: Meaning, then: str = "") -> str:
    """Any meaning as a clause without final punctuation. ``then`` is 就 after "if"."""
    if isinstance(m, Act):
        return act_zh(m, then=then)
    if isinstance(m, Describe):
        return describe_zh(m, then)
    if isinstance(m, Be):
        if m.exists:
            assert isinstance(m.complement, Spot)
            thing = np_zh(m.subject, bare=m.question or m.negative)
            return spot_zh(m.complement) + ("没有" if m.negative else "有") + thing
        if m.complement == GAP:
            return np_zh(m.subject) + "在哪里"
        verb = ("不" if m.negative else "") + ("在" if isinstance(m.complement, Spot) else "是")
        if isinstance(m.complement, Spot):
            rest = spot_zh(m.complement)
        else:
            rest = np_zh(replace(m.complement, det="") if m.complement.det == "the" else m.complement, bare=True)
        return np_zh(m.subject) + verb + rest
    if isinstance(m, Pivot):
        verb = ("没" if m.negative else "") + {"ask": "请", "tell": "让"}[m.verb]
        inner = act_zh(replace(m.act, tense="imperative"))
        return np_zh(m.subject) + verb + np_zh(m.person) + (inner if m.act.negative else inner.removeprefix("请"))
    if isinstance(m, Embed):
        return np_zh(m.subject) + ("不" if m.negative else "") + EMBEDDERS[m.verb] + clause_zh(m.clause)
    before, end, link = CONJUNCTIONS[m.conj]
    return f"{before}{clause_zh(m.first)}{end}，{link}{clause_zh(m.second, '就' if m.conj == 'if' else '')}"


def has_wh(m: Meaning) -> bool:
    """Whether the sentence is a wh-question, not a yes/no question."""
    if isinstance(m, Act):
        nps = [np for np in (m.subject, m.object) if np]
        return bool(m.wh) or any(np.noun in ("who", "what") or np.det in ("which", "how many") for np in nps)
    return isinstance(m, Be) and (m.complement == GAP or m.subject.det == "how many")


def chinese(m: Meaning) -> str:
    """The Chinese sentence."""
    if not is_question(m):
        return clause_zh(m) + "。"
    return clause_zh(m) + ("？" if has_wh(m) else "吗？")

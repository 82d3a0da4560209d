"""Sampler of meanings: which words go together, which tenses a verb has, how sentences are built."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from grammar import GAP, NP, Act, Be, Complex, Describe, Embed, Meaning, Pivot, Spot
from lexicon import (
    ADJECTIVES,
    ADVERBS,
    ANIMALS,
    FRAMES,
    GOODS,
    MODALS,
    MOODS,
    NAMES,
    NOUNS,
    NUMBERS,
    PEOPLE,
    PLACES,
    POSSESSIVES,
    SPOTS,
    TIMES,
    Frame,
    of_kind,
)

T = TypeVar("T")
PRONOUNS = ("I", "you", "he", "she", "we", "they")
SHE = ("Mary", "Anna", "Lucy", "Linda", "girl", "woman", "nurse", "mother", "grandmother", "wife")
ACCIDENTS = ("lose", "break", "miss", "bite", "steal", "leave", "hear", "see", "meet", "find", "make", "catch")
OWNED = ("friend", "neighbor", "teacher", "student", "doctor", "driver", "lawyer", "manager")
LARGE = ("horse", "cow", "wolf", "chair", "table", "bed", "tree")
EVER = ("see", "read", "watch", "play", "ride", "drive", "visit", "meet", "sing", "learn", "teach", "be to")
PASSIVE = tuple(
    f
    for f in FRAMES
    if (f.result or f.verb in ("praise", "criticize", "invite")) and f.verb not in ("drink", "finish")
    if "goal" not in f.tags and "give" not in f.tags
)
ACTIVE = tuple(f for f in FRAMES if "weather" not in f.tags and "animal" not in f.tags)
WILLED = tuple(
    f
    for f in ACTIVE
    if f.cls in "AEM" and "zhe" not in f.tags and f.verb not in ("arrive", "take") and f.verb not in ACCIDENTS
)
RAIN, SNOW = (f for f in FRAMES if "weather" in f.tags)
RELATIVE = tuple(f for f in ACTIVE if f.cls in "AE" and f.verb not in ("come back", "take", "cry", "hear", "arrive"))


# ---------------------------------------------------------------- drawing meanings
class Sampler:
    """Draws meanings at random. The arguments of a method are fixed; it draws the rest."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[int(self.rng.random() * len(items))]

    def weighted(self, weights: dict[str, int]) -> str:
        """One key, with probability proportional to its weight."""
        return self.pick([key for key, weight in weights.items() for _ in range(weight)])

    # noun phrases
    def adjective(self, noun: str, share: float = 0.25) -> str:
        """An attributive adjective for the noun, or none."""
        kind = NOUNS[noun].kind
        fitting = [a.en for a in ADJECTIVES if a.attributive and (noun in a.kinds or kind in a.kinds)]
        return self.pick(fitting) if fitting and self.chance(share) else ""

    def noun_phrase(self, noun: str, kinds: dict[str, int], adjectives: float = 0.25) -> NP:
        """A phrase with this noun. ``kinds`` weights the determiners: the, a, this, own, number, bare, any, many."""
        kind = NOUNS[noun].kind
        if kind in ("fixed", "name", "pronoun"):
            return NP(noun)
        if kind == "kin":
            owners = {"wife": ("my", "your", "his"), "husband": ("my", "your", "her")}.get(noun, tuple(POSSESSIVES))
            names = [n for n in NAMES if (n in SHE) != (noun == "wife") or noun not in ("wife", "husband")]
            return NP(
                noun,
                det=self.pick([n for n in names if noun != "husband" or n in SHE] if self.chance(0.15) else owners),
            )
        det, mass, adj = self.weighted(kinds), kind == "drink", self.adjective(noun, adjectives)
        if noun in ("friend", "neighbor") and det in ("the", "this"):
            det = "own"
        elif det == "own" and (kind in ("building", "public", "animal") or (kind == "person" and noun not in OWNED)):
            det = "the"
        if det == "a":
            return NP(noun, "a", adj=adj)
        if det in ("any", "bare"):
            return NP(noun, "" if det == "bare" else "any", plural=not mass, adj=adj)
        if det == "many":
            return NP(noun, "some" if mass or self.chance(0.4) else "many", plural=not mass, adj=adj)
        number = self.pick(tuple(NUMBERS)) if det == "number" else ""
        if det == "number":
            return NP(noun, self.pick(("", "", "", "the", "this")), number=number, adj=adj)
        if det == "own":
            det = self.pick(NAMES) if self.chance(0.2) else self.pick(tuple(POSSESSIVES))
        return NP(noun, det, plural=not mass and self.chance(0.25), adj=adj)

    def person(self) -> NP:
        """A human subject."""
        kind = self.weighted({"pronoun": 35, "name": 20, "kin": 10, "noun": 35})
        if kind == "pronoun":
            return NP(self.pick(PRONOUNS))
        if kind == "name":
            return NP(self.pick(NAMES))
        if kind == "kin":
            return self.noun_phrase(self.pick(of_kind("kin")), {})
        return self.definite(self.pick(PEOPLE), 0.2)

    def definite(self, noun: str, adjectives: float = 0.25) -> NP:
        """A phrase with the, this or my, singular or plural."""
        return self.noun_phrase(noun, {"the": 6, "this": 2, "own": 1}, adjectives)

    def other_than(self, subject: NP) -> NP:
        """Another person, who is not part of the subject."""
        first = ("I", "we")
        while True:
            other = self.person()
            if other.noun != subject.noun and not (other.noun in first and subject.noun in first):
                return other

    def pronoun_for(self, np: NP) -> NP:
        """The pronoun for the subject of the first clause in the second clause."""
        if NOUNS[np.noun].kind == "pronoun":
            return np
        if np.plural or np.number:
            return NP("they")
        return NP("she" if np.noun in SHE else "he")

    def object_of(self, frame: Frame, tense: str, negative: bool, subject: NP) -> NP | None:
        """An object of the frame, with a determiner for the tense."""
        if not frame.objects:
            return None
        noun = self.pick(frame.objects)
        kind = NOUNS[noun].kind
        if kind in ("person", "kin", "name"):
            if kind == "person" and self.chance(0.3):
                other = self.other_than(subject)
                return other if NOUNS[other.noun].kind != "person" else self.definite(noun)
            return self.definite(noun) if noun != subject.noun else NP(self.pick([n for n in NAMES if n != noun]))
        if frame.zh == "拍":
            return self.noun_phrase(noun, {"number": 1, "many": 2, "a": 2} if not negative else {"any": 1})
        if "zhe" in frame.tags:
            return self.noun_phrase(noun, {"a": 4, "this": 1, "the": 2}) if not negative else NP(noun, "a")
        if tense in ("habit", "skill"):
            return self.noun_phrase(noun, {"bare": 5, "this": 1} if frame.cls != "S" else {"bare": 1}, 0.15)
        if frame.zh in ("有", "需要"):
            return NP(noun, "a") if negative else self.noun_phrase(noun, {"a": 5, "number": 2, "many": 1})
        if frame.zh == "喜欢":
            return self.noun_phrase(noun, {"bare": 4, "the": 3, "this": 3, "own": 2})
        if tense in ("state", "state past", "ever"):
            return self.noun_phrase(noun, {"the": 3, "this": 4, "own": 2})
        if tense in ("prog", "was prog", "when", "imperative"):
            few = {"the": 5, "this": 2, "own": 2}
            return self.noun_phrase(noun, few if negative or tense == "when" or "ba" in frame.tags else {**few, "a": 5})
        if negative:
            return self.noun_phrase(noun, {"the": 5, "this": 2, "own": 2, "any": 0 if "ba" in frame.tags else 2})
        if "ba" in frame.tags:
            return self.noun_phrase(noun, {"the": 7, "this": 2, "own": 3, "a": 3, "number": 1})
        return self.noun_phrase(noun, {"the": 6, "a": 5, "this": 2, "own": 2, "number": 4, "many": 2})

    # verb clauses
    def tense_of(self, frame: Frame) -> str:
        """A tense that the frame can have."""
        if frame.cls == "P":
            return "ever"
        if frame.cls == "S":
            return self.weighted({"state": 4, "state past": 1})
        if frame.verb in ACCIDENTS and frame.zh != "做":
            return self.weighted({"past": 5, "ever": 1 if frame.verb in EVER and frame.zh != "看见" else 0})
        table = {"past": 9, "future": 4, "going": 3, "modal": 5, "ever": 4 if frame.verb in EVER else 0}
        if frame.cls in "AM":
            table["habit"] = 12
        if frame.cls == "A":
            table["prog"] = 12 if "zhe" in frame.tags else 5
        if "skill" in frame.tags:
            table["skill"] = 3
        if frame.cls == "E" and frame.objects:
            table["already"] = 3
        tense = self.weighted(table)
        return self.pick(MODALS) if tense == "modal" else tense

    def frame(self, frames: Sequence[Frame]) -> Frame:
        """A frame. Frames with more objects are more likely."""
        return self.pick([f for f in frames for _ in range((14 if "zhe" in f.tags else 3) + len(f.objects) // 8)])

    def time_for(self, tense: str, share: float, long: bool = False) -> str:
        """A time adverbial for the tense, or none. With ``long``, it can be a year."""
        modal = tense in MODALS
        group = {"past": "past", "future": "future", "going": "future", "habit": "habit", "prog": "prog"}.get(tense)
        if modal:
            group, share = "future", share * 0.4
        if tense == "prog":
            share *= 0.4
        times = [time for time in TIMES[group] if long or "year" not in time] if group else []
        return self.pick(times) if times and self.chance(share) else ""

    def act(
        self, subject: NP | None = None, tense: str = "", negative: float = 0.2, frames: Sequence[Frame] = ACTIVE
    ) -> Act:
        """A verb clause that is a statement."""
        subject = subject or self.person()
        frame = self.frame(frames)
        conditional = bool(tense)
        tense = tense or self.tense_of(frame)
        if tense == "can" and "skill" in frame.tags:  # "can" of a skill is always 会
            tense = "future" if conditional else "skill"
        is_negative = self.chance(negative)
        obj = self.object_of(frame, tense, is_negative, subject)
        goal = recipient = companion = None
        if "goal" in frame.tags:
            prep = self.pick(("on", "in", "under"))
            goal = Spot(prep, self.pick([n for n in SPOTS[prep].split() if obj is None or n != obj.noun]))
        if "give" in frame.tags:
            recipient = self.other_than(subject)
        is_simple = tense in ("past", "future", "habit", "going", "prog", "if", "when", *MODALS)
        place = adverb = ""
        if frame.places and is_simple and self.chance(0.25 if obj else 0.5):
            place = self.pick(tuple(PLACES[self.pick(frame.places)]))
        elif frame.cls in "AM" and is_simple and "zhe" not in frame.tags and self.chance(0.15):
            companion = self.other_than(subject)
        time = self.time_for(tense, 0.6, frame.cls in "EM")
        if tense == "habit":
            time = ""
            if is_negative:
                time = "on weekends" if self.chance(0.3) else ""
            elif self.chance(0.5):
                time = self.pick(tuple(TIMES["habit"]))
            else:
                adverb = self.pick(tuple(ADVERBS))
        return Act(
            subject, frame, tense, obj, is_negative, recipient=recipient, goal=goal, companion=companion, place=place,
            time=time, adverb=adverb,
        )  # fmt: skip

    def statement(self) -> Act:
        """A sentence of one verb clause; sometimes the time is at the front."""
        act = self.act()
        return replace(act, front=bool(act.time) and act.tense in ("past", "future") and self.chance(0.15))

    def yes_no(self) -> Act:
        """A yes/no question, not negative."""
        act = self.act(negative=0)
        if (act.object and act.object.det in ("many", "some")) or act.adverb == "never":
            return replace(act, question=True, adverb="", object=act.object and replace(act.object, det="the"))
        return replace(act, question=True)

    def wh_question(self) -> Act:
        """Who, what, which, how many, where, when, why or how."""
        kind = self.weighted(
            {"who": 4, "what": 4, "which": 3, "how many": 3, "where": 3, "when": 3, "why": 3, "how": 1}
        )
        frames: Sequence[Frame] = [f for f in ACTIVE if f.cls in "AEM"]
        if kind == "who":
            return replace(self.act(NP("who"), negative=0.15, frames=frames), question=True)
        if kind in ("what", "which", "how many"):
            frames = [f for f in frames if len(f.objects) >= 4 and NOUNS[f.objects[0]].kind not in ("person", "fixed")]
            frames = [f for f in frames if f.verb not in ("see", "hear", "call", "go to") and "zhe" not in f.tags]
            if kind == "what":  # without an object, the sense of the verb must be clear
                frames = [f for f in frames if sum(g.verb == f.verb for g in FRAMES) == 1]
            if kind == "how many":
                frames = [f for f in frames if "goal" not in f.tags and "give" not in f.tags]
            tense = self.pick(("past", "past", "future", "going", "want"))
            if tense != "past":
                frames = [f for f in frames if f.verb not in ACCIDENTS]
            act = self.act(tense=tense, negative=0, frames=frames)
            noun = self.pick(act.frame.objects)
            if NOUNS[noun].kind == "drink" and kind != "what":
                return self.wh_question()
            obj = (
                NP("what")
                if kind == "what"
                else NP(noun, kind, plural=kind == "how many", adj=self.adjective(noun, 0.1))
            )
            return replace(act, object=obj, question=True)
        if kind == "where":
            act = self.act(
                negative=0, tense=self.pick(("past", "prog", "want")), frames=[f for f in frames if f.places]
            )
            return replace(act, place="", question=True, wh="where", companion=None)
        if kind == "when":
            act = self.act(negative=0, tense=self.pick(("past", "future", "going")), frames=WILLED)
            return replace(act, time="", question=True, wh="when")
        if kind == "how":
            act = self.act(negative=0, tense=self.pick(("past", "going")), frames=[f for f in frames if f.cls == "M"])
            frame = self.pick([f for f in frames if f.verb in ("go to", "come to", "go home", "come back")])
            place = NP(self.pick(frame.objects)) if frame.objects else None
            return replace(act, frame=frame, object=place, question=True, wh="how")
        act = self.act(negative=0.5, tense=self.pick(("past", "want")), frames=WILLED)
        return replace(act, question=True, wh="why")

    def passive(self, subject: NP | None = None, frames: Sequence[Frame] = PASSIVE) -> Act:
        """A passive clause, with or without an agent."""
        frame = self.frame(frames)
        subject = subject or self.definite(self.pick(frame.objects))
        agent = None
        if self.chance(0.65):
            animals = frame.verb == "bite" or (frame.verb == "eat" and self.chance(0.5))
            agent = self.definite(self.pick(("dog", "cat", "horse", "wolf") if animals else PEOPLE), 0.1)
            if not animals and self.chance(0.4):
                agent = NP(self.pick((*NAMES, "I", "he", "she", "they")))
        tense = self.weighted({"past": 5, "future": 0 if frame.verb in ACCIDENTS else 1, "already": 1})
        time = self.time_for(tense, 0.5, True)
        return Act(subject, frame, tense, agent, self.chance(0.15), passive=True, time=time)

    def imperative(self) -> Act:
        """Please close the window. Do not open the door."""
        frames = [f for f in ACTIVE if (f.cls in "AE" or f.cls == "M") and f.verb not in ACCIDENTS]
        frames = [f for f in frames if f.verb not in ("arrive", "cry", "play", "come back") and "zhe" not in f.tags]
        act = self.act(NP("you"), "imperative", 0.35, frames)
        if act.recipient:
            act = replace(act, recipient=self.pick((NP("I"), NP("he"), NP("she"), NP("they"))))
        return replace(act, time="", adverb="", companion=None)

    # relative clauses
    def with_relative(self, plain: bool = False) -> NP:
        """A noun phrase with a relative clause: subject, object or passive relative."""
        kind = self.weighted({"subject": 5, "object": 4, "passive": 0 if plain else 2})
        plural = self.chance(0.25)
        if kind == "subject":
            noun = self.pick(PEOPLE)
            frames = [f for f in RELATIVE if "give" not in f.tags]
            rel = self.act(NP(noun), self.pick(("past", "past", "prog", "habit")), 0.1, frames)
            if rel.frame.cls != "A" and rel.tense in ("prog", "habit"):
                rel = self.act(NP(noun), "past", 0.1, [f for f in frames if f.cls == "E" and f.objects])
            time = rel.time or ("yesterday" if rel.tense == "past" and not rel.object else "")
            rel = replace(rel, subject=GAP, time=time)
        elif kind == "object":
            subject = self.pick((NP(self.pick(PRONOUNS)), NP(self.pick(NAMES)), self.noun_phrase("mother", {})))
            frames = [
                f for f in RELATIVE if f.cls == "E" and len(f.objects) >= 3 and NOUNS[f.objects[0]].kind != "person"
            ]
            rel = self.act(subject, "past", 0.05, [f for f in frames if f.verb not in ("see", "miss", "make")])
            noun = self.pick(rel.frame.objects)
            rel = replace(rel, object=GAP)
        else:
            frame = self.frame(PASSIVE)
            noun = self.pick([n for n in frame.objects if NOUNS[n].kind != "name"])
            rel = replace(self.passive(GAP, (frame,)), tense="past", negative=False)
            rel = replace(rel, time=rel.time if rel.time in TIMES["past"] else "")
        number = self.pick(tuple(NUMBERS)) if plural and self.chance(0.4) and NOUNS[noun].kind != "drink" else ""
        is_plural = plural and not number and NOUNS[noun].kind != "drink"
        return NP(noun, "the", is_plural, number, self.adjective(noun, 0.08), rel)

    def relative_sentence(self) -> Meaning:
        """A sentence around a noun phrase with a relative clause."""
        np = self.with_relative()
        kind = NOUNS[np.noun].kind
        if kind in ("person", "animal"):
            way = self.weighted(
                {"know": 2, "act": 3, "describe": 3, "be": 1 if np.noun in ("boy", "girl", "man") else 0}
            )
            if way == "know":
                frames = [
                    f for f in FRAMES if f.zh in ("认识", "看见", "遇见", "帮助", "喜欢") and np.noun in f.objects
                ]
                if frames:
                    frame = self.pick(frames)
                    tense = "state" if frame.cls == "S" else "past"
                    question = self.chance(0.25)
                    return Act(self.person(), frame, tense, np, not question and self.chance(0.2), question=question)
            if way == "act" and kind == "person":
                return self.act(np, frames=[f for f in ACTIVE if f.cls in "AES"])
            if way == "be":
                return Be(np, NP(self.pick(("friend", "neighbor")), self.pick(("my", "his", "her"))), self.chance(0.1))
            return self.describe(np)
        way = self.weighted({"describe": 3, "like": 2, "this": 2, "spot": 1 if np.noun in GOODS else 0})
        fitting = [f for f in FRAMES if f.zh in ("喜欢", "找到", "看") and np.noun in f.objects and f.verb != "see"]
        if way == "like" and fitting:
            frame = self.pick(fitting)
            negative = self.chance(0.25)
            return Act(self.person(), frame, "state" if frame.cls == "S" else "past", np, negative)
        if way == "spot":
            return Be(np, self.spot(np.noun))
        fits = any(a.predicative and (np.noun in a.kinds or kind in a.kinds) for a in ADJECTIVES)
        if way == "describe" and fits:
            return self.describe(np)
        np = replace(np, plural=np.plural or bool(np.number), number="")
        return Be(NP("this", plural=np.plural), np, self.chance(0.15))

    # adjectives, places, being
    def fitting_adjective(self, noun: str) -> str:
        """An adjective that can be predicated of a noun."""
        kind = NOUNS[noun].kind
        return self.pick([a.en for a in ADJECTIVES if a.predicative and (noun in a.kinds or kind in a.kinds)])

    def describable(self) -> str:
        """A noun that adjectives can describe."""
        nouns = [n for a in ADJECTIVES for n in a.kinds if n in NOUNS and n != "it"]
        kinds = of_kind("body", "wearable", "vehicle", "animal", "food", "person", "reading", "building")
        return self.pick((*nouns, *kinds))

    def describe(self, subject: NP | None = None) -> Describe:
        """The boy is tall; it was cold yesterday; I am tired."""
        if subject is None:
            way = self.weighted({"mood": 4, "weather": 3, "thing": 6})
            if way == "weather":
                past = self.chance(0.5)
                time = self.time_for("past", 1) if past else self.pick(("today", "now"))
                degree = self.pick(("", "very", "too"))
                return Describe(NP("it"), self.pick(("hot", "cold")), past, self.chance(0.2), degree=degree, time=time)
            subject = self.person() if way == "mood" else self.definite(self.describable(), 0)
        person = NOUNS[subject.noun].kind in ("person", "kin", "name", "pronoun")
        adj = self.pick(MOODS) if person and self.chance(0.6) else ""
        if not adj:
            adj = self.fitting_adjective(subject.noun)
        past = adj in MOODS and self.chance(0.4)
        way = self.weighted({"plain": 5, "negative": 2, "question": 2})
        degree = self.weighted({"": 5, "very": 3, "too": 2}) if way == "plain" else ""
        time = self.time_for("past", 1) if past else ""
        degree = "very" if degree == "too" and adj in ("happy", "angry", "clever") else degree
        return Describe(subject, adj, past, way == "negative", way == "question", degree, None, time)

    def compare(self) -> Describe:
        """A comparison of two nouns of the same kind: more, as or less."""
        senses = [s for s in ADJECTIVES if s.predicative and s.en not in ("dirty", "hot", "cold", *MOODS)]
        sense = self.pick(senses)
        nouns = [n for n in NOUNS if n in sense.kinds or NOUNS[n].kind in sense.kinds]
        noun, adj = self.pick(nouns), sense.en
        similar = [n for n in nouns if NOUNS[n].kind == NOUNS[noun].kind and n != noun]
        a = self.definite(noun, 0)
        if NOUNS[noun].kind == "person" and self.chance(0.5):
            a = self.pick((NP(self.pick(NAMES)), self.noun_phrase(self.pick(("father", "uncle", "wife")), {})))
            b, adj = NP(self.pick(PRONOUNS)), self.pick(("tired", "busy", "happy"))
        elif similar and self.chance(0.6):
            b = self.definite(self.pick(similar), 0)
        elif NOUNS[noun].kind in ("building", "public", "person", "animal"):
            a, b = NP(noun, "this"), NP(noun, "the", adj=self.adjective(noun, 0))
            return self.compare() if similar else Describe(a, adj, degree="more", other=b)
        else:
            a, b = NP(noun, "this"), NP(noun, self.pick(tuple(POSSESSIVES)))
        degree = self.weighted({"more": 5, "much": 2, "as": 2, "less": 2})
        return Describe(a, adj, degree=degree, other=b, question=degree == "more" and self.chance(0.2))

    def spot(self, noun: str) -> Spot:
        """A place where a thing can be."""
        kind = NOUNS[noun].kind
        if kind in ("vehicle", "public", "building") or noun in LARGE:
            return Spot(self.pick(("near", "behind")), self.pick(("school", "hospital", "museum", "station", "hotel")))
        if kind == "animal" and self.chance(0.4):
            return Spot(self.pick(("under", "behind", "next to")), self.pick(("tree", "house")))
        prep = self.pick(("on", "in", "under", "next to", "behind"))
        return Spot(prep, "door" if prep == "behind" else self.pick([n for n in SPOTS[prep].split() if n != noun]))

    def being(self) -> Be:
        """There is, is there, is it on, where is, he is a teacher, this is my book."""
        way = self.weighted({"there": 6, "spot": 3, "where": 2, "job": 3, "this": 2})
        thing = self.pick((*GOODS, *ANIMALS, "tree", "shop", "restaurant", "bank", "school", "hospital"))
        place = self.spot(thing)
        if place.noun == thing:
            return self.being()
        if way == "there":
            if self.chance(0.12):
                return Be(NP(thing, "how many", plural=True), place, question=True, exists=True)
            mode = self.weighted({"yes": 5, "no": 1, "question": 2})
            kinds = {"a": 5, "number": 3, "many": 1} if mode == "yes" else {"any": 1} if mode == "no" else {"a": 1}
            np = self.noun_phrase(thing, kinds)
            np = replace(np, det="") if np.number else np
            return Be(np, place, mode == "no", mode == "question", exists=True)
        if way == "spot":
            mode = self.weighted({"yes": 5, "no": 2, "question": 2})
            return Be(self.definite(thing), place, mode == "no", mode == "question")
        if way == "where":
            return Be(self.definite(thing), GAP, question=True)
        mode = self.weighted({"yes": 5, "no": 2, "question": 2})
        if way == "this":
            plural = self.chance(0.25)
            own = NP(self.pick(GOODS), self.pick((*POSSESSIVES, *NAMES)), plural)
            return Be(NP("this", plural=plural), own, mode == "no", mode == "question")
        subject = self.person()
        if NOUNS[subject.noun].kind == "person":
            subject = NP(self.pick(NAMES))
        job = self.pick(PEOPLE[5:16])
        plural = subject.noun in ("we", "they") or subject.plural
        return Be(subject, NP(job, "" if plural else "a", plural), mode == "no", mode == "question")

    # sentences with two clauses
    def pivot(self) -> Pivot:
        """Someone asks (请) or tells (让) someone to do something."""
        subject = self.person()
        person = self.other_than(subject)
        act = self.imperative()
        if act.recipient and act.recipient in (subject, person):
            act = replace(act, recipient=NP("Tom" if "Tom" not in (subject.noun, person.noun) else "Mary"))
        return Pivot(subject, self.pick(("ask", "tell")), person, act, self.chance(0.1) and not act.negative)

    def embed(self) -> Embed:
        """Think, know, hear, say, hope that; know where, when, why."""
        verb = self.pick(("think", "know", "hear", "say", "hope", "where"))
        subject = NP(self.pick(PRONOUNS)) if self.chance(0.6) else self.person()
        inner = (
            NP(self.pick((*NAMES, "he", "she", "they"))) if self.chance(0.5) else self.definite(self.pick(PEOPLE), 0)
        )
        if inner == subject:
            inner = NP("we")
        if verb == "where":
            question = self.wh_question()
            while not question.wh or question.subject == subject:
                question = self.wh_question()
            return Embed(subject, "know", replace(question, question=False), self.chance(0.6))
        if verb == "hope":
            return Embed(subject, verb, self.act(inner, "future", 0.15, WILLED))
        if verb == "think":
            clause = self.compare() if self.chance(0.4) else self.describe()
            while clause.question:
                clause = self.describe()
            return Embed(subject, verb, clause)
        act = self.act(inner, "future" if self.chance(0.4) else "past", 0.15, WILLED)
        return Embed(subject, verb, act, False)

    def complex(self) -> Complex:
        """because, if, when, although, before, after, and, but, so."""
        conj = self.pick(
            ("because", "because", "if", "if", "when", "when", "although", "before", "after", "but", "so", "and")
        )
        last = conj in ("because", "if", "when", "before", "after") and self.chance(0.4)
        subject = NP(self.pick(PRONOUNS)) if last else self.person()
        again = self.pronoun_for(subject)
        acts = [f for f in ACTIVE if f.cls in "AEM" and "zhe" not in f.tags and f.verb not in ("arrive", "take")]
        if conj == "if":
            first = self.act(subject, "if", 0.2, WILLED)
            if self.chance(0.35):
                again = NP(self.pick(PRONOUNS))
                first = Act(NP("it"), self.pick((RAIN, SNOW)), "if", negative=self.chance(0.2))
            first = replace(first, time=self.pick(("tomorrow", "tomorrow", "next week", "tonight", "")))
            tense = self.pick(("future", "future", "can", "should"))
            return Complex(conj, first, replace(self.act(again, tense, 0.25, WILLED), time=""), last)
        if conj in ("when", "before", "after"):
            if last and conj == "when":
                subject = NP(self.pick(("I", "you", "we")))
            tense = "after" if conj == "after" else "when"
            first = replace(self.act(subject, tense, 0, WILLED), companion=None)
            if conj == "when":
                first = replace(first, place="")
                other = self.other_than(subject)
                second: Act = self.act(other, "was prog", 0, [f for f in WILLED if f.cls == "A"])
                return Complex(conj, first, replace(second, time="", companion=None), last)
            return Complex(conj, first, replace(self.act(again, "past", 0, WILLED), time=""), last)
        if conj == "and":
            return Complex(
                conj,
                replace(self.act(subject, "past", 0.1, acts)),
                self.act(self.other_than(subject), "past", 0.1, acts),
            )
        if self.chance(0.3):
            weather = Act(
                NP("it"), self.pick((RAIN, SNOW)), "past", negative=self.chance(0.2), time=self.time_for("past", 1)
            )
            effect = self.act(again, "past", 0.5, WILLED)
            return Complex(conj, weather, replace(effect, time="", subject=subject), last)
        reason = self.mood(subject)
        effect = self.act(again, "past", 0.5, WILLED)
        return Complex(conj, reason, replace(effect, time=""), last)

    def mood(self, subject: NP) -> Describe:
        """How someone felt."""
        adj, negative = self.pick(MOODS), self.chance(0.1)
        degree = self.weighted({"": 5, "very": 3}) if not negative else ""
        return Describe(subject, adj, True, negative, False, degree, None, self.time_for("past", 0.5))

    def animal_act(self) -> Act:
        """The dog bit the man. The cat is chasing a mouse."""
        frame = self.pick([f for f in FRAMES if "animal" in f.tags])
        subject = self.definite(self.pick(("dog", "cat", "wolf", "horse")))
        tense = self.pick(("past", "past", "prog")) if frame.verb == "chase" else "past"
        obj = self.definite(self.pick([n for n in frame.objects if n != subject.noun]))
        return Act(subject, frame, tense, obj, self.chance(0.2), question=False, time=self.time_for(tense, 0.5))

    def weather(self) -> Act:
        """It rains, snows."""
        tense = self.pick(("past", "future", "prog"))
        mode = self.weighted({"yes": 4, "no": 2, "question": 2})
        frame = self.pick((RAIN, SNOW))
        place = self.pick(("in Beijing", "in London", "in Shanghai", "in Paris", "")) if tense != "future" else ""
        return Act(
            NP("it"), frame, tense, None, mode == "no", mode == "question", time=self.time_for(tense, 1), place=place
        )

    def sentence(self) -> Meaning:
        """A sentence of any kind."""
        way = self.weighted(
            {"statement": 30, "yes_no": 8, "wh": 9, "passive": 6, "describe": 7, "compare": 6, "being": 11, "rel": 9,
             "pivot": 3, "embed": 5, "complex": 13, "rich": 6, "three": 5, "imperative": 3, "animal": 1, "weather": 2}
        )  # fmt: skip
        if way == "passive":
            act = self.passive()
            return replace(act, question=not act.negative and self.chance(0.15))
        makers = {
            "statement": self.statement, "yes_no": self.yes_no, "wh": self.wh_question, "describe": self.describe,
            "compare": self.compare, "being": self.being, "rel": self.relative_sentence, "pivot": self.pivot,
            "embed": self.embed, "complex": self.complex, "rich": self.rich, "three": self.three,
            "imperative": self.imperative, "animal": self.animal_act, "weather": self.weather,
        }  # fmt: skip
        return makers[way]()  # type: ignore[no-any-return,operator]

    def rich(self) -> Complex:
        """Two clauses; the first has a relative clause, a passive or a comparison."""
        conj = self.pick(("because", "although", "but", "so", "if"))
        way = self.pick(("relative", "passive", "comparison"))
        again = NP(self.pick((*PRONOUNS, *NAMES)))
        first: Meaning
        if way == "relative":
            subject = self.with_relative(plain=True)
            while NOUNS[subject.noun].kind != "person":
                subject = self.with_relative(plain=True)
            again = self.pronoun_for(subject)
            first = self.act(subject, "if", 0.2, WILLED) if conj == "if" else self.mood(subject)
        elif way == "passive":
            first = replace(self.passive(), tense="if" if conj == "if" else "past", negative=False)
            first = replace(first, time=self.time_for("future" if conj == "if" else "past", 0.4))
        else:
            first = replace(self.compare(), question=False)
        second = self.act(again, "future" if conj == "if" else "past", 0.3, WILLED)
        last = way != "relative" and conj in ("because", "if") and self.chance(0.3)
        return Complex(conj, first, replace(second, time=""), last)

    def three(self) -> Complex:
        """Three clauses."""
        first = self.complex()
        while first.conj in ("and", "but", "so"):
            first = self.complex()
        return Complex(self.pick(("and", "but")), first, self.act(tense="past", frames=WILLED))

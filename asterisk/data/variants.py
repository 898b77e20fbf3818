"""Variants of sentences by rule.

Word order, negation and opposites decide what a sentence says, and change hardly a word of it: a small model
learns them only from pairs that differ in nothing else. A variant need not be good English; in distillation the
teacher judges how far it lies from its sentence. The rules know the plain present tense of captions, without a
parser; of those that fit a sentence, one is drawn at random.

- negate: "a man is playing" / "a man is not playing"; "a dog barks" / "no dog barks"; or take a negation away
- swap: "a dog is chasing a cat" / "a cat is chasing a dog"
- passive: "a man is slicing a potato" / "a potato is being sliced by a man"
- replace: a word by its opposite ("young" / "old"), neighbour ("guitar" / "piano") or kind ("dog" / "animal")
- shorten: "a boy is running on the grass" / "a boy is running"
- reorder: "a man and a woman" / "a woman and a man"

What somebody does in one sentence is also said of somebody in another, in several forms, which makes as much
text of this kind as is wanted: "a dog is playing a guitar" / "there is no dog playing a guitar".
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

AUXILIARIES = "is|are|was|were|am|can|could|will|would|should|must|has|have|had|does|did|do"
DETERMINERS = "a|an|the|one|two|three|four|some|several|many|his|her|their|my|your|another|each|every"
BOUNDARIES = (
    f"{AUXILIARIES}|in|on|at|with|of|by|and|or|to|from|into|onto|near|over|under|while|as|that|who|which|for"
)
# A determiner and up to three words, none of them a verb, a preposition or a conjunction.
PHRASE = rf"(?:{DETERMINERS}) (?:(?!(?:{BOUNDARIES})\b)\w+ ){{0,2}}?(?!(?:{BOUNDARIES})\b)\w+"
NEGATION = re.compile(rf"\b({AUXILIARIES}) not\b|\b({AUXILIARIES})n't\b|\b(can't|won't)", re.I)
AUXILIARY = re.compile(rf"\b({AUXILIARIES})\b", re.I)
PHRASE_END = rf"(?= (?:{BOUNDARIES})\b|,|$)"
TWO_PHRASES = re.compile(rf"^({PHRASE}) ((?:is|are|was|were) \w+ing|\w+s) ({PHRASE}){PHRASE_END}", re.I)
PROGRESSIVE = re.compile(rf"^({PHRASE}) (is|are|was|were) (\w+)ing ({PHRASE}){PHRASE_END}", re.I)
ENDING = re.compile(
    r"^(.{12,}?) (?:in|on|at|with|near|by|under|over|behind|through|outside|inside|while) .+$", re.I
)
CLAUSE = re.compile(
    rf"^({PHRASE}(?: (?:and|of|in|with) {PHRASE})?) (?:(is|are) )?((?!(?:{BOUNDARIES})\b)\w+ing(?: \w+){{0,9}})$",
    re.I,
)
CONJUNCTION = re.compile(rf"\b({PHRASE}) and ({PHRASE}){PHRASE_END}", re.I)
RECOMBINATIONS = 6  # for each clause found
PARTICIPLES = (
    "cutt/cut hitt/hit putt/put ridi/ridden rid/ridden throw/thrown eat/eaten driv/driven hold/held "
    "writ/written build/built tak/taken giv/given mak/made break/broken sing/sung draw/drawn shoot/shot "
    "feed/fed catch/caught bring/brought buy/bought teach/taught sell/sold tell/told read/read wear/worn "
    "lead/led leav/left keep/kept spread/spread sett/set beat/beaten bit/bitten choos/chosen fight/fought "
    "find/found grind/ground hid/hidden know/known los/lost meet/met pay/paid see/seen shak/shaken show/shown "
    "spin/spun steal/stolen sweep/swept"
)
OPPOSITES = (
    "big/small large/little young/old tall/short long/short fast/slow hot/cold warm/cool wet/dry open/closed "
    "opening/closing full/empty happy/sad loud/quiet loudly/softly light/dark black/white clean/dirty "
    "heavy/light high/low up/down inside/outside indoors/outdoors above/below over/under front/back "
    "left/right first/last early/late day/night morning/evening summer/winter rich/poor strong/weak good/bad "
    "best/worst new/old near/far standing/sitting walking/running entering/leaving starting/stopping "
    "pushing/pulling buying/selling giving/taking climbing/descending laughing/crying awake/asleep alive/dead "
    "before/after always/never everyone/nobody all/none with/without more/less many/few adding/removing "
    "folding/unfolding lifting/dropping winning/losing"
)
NEIGHBOURS = (
    "man/woman boy/girl men/women boys/girls king/queen father/mother brother/sister he/she his/her dog/cat "
    "dogs/cats horse/cow bird/fish lion/tiger guitar/piano violin/flute drum/trumpet car/truck bus/train "
    "bicycle/motorcycle boat/plane ball/frisbee table/chair bed/sofa house/tent shirt/jacket hat/helmet "
    "apple/banana potato/onion tomato/carrot bread/cake meat/fish water/milk coffee/tea knife/fork plate/bowl "
    "pen/brush book/newspaper phone/camera road/river beach/mountain forest/desert street/field grass/sand "
    "snow/rain tree/flower red/blue green/yellow brown/grey one/two two/three three/four playing/watching "
    "eating/cooking singing/dancing swimming/diving jumping/sleeping reading/writing riding/driving "
    "throwing/catching washing/painting doctor/teacher"
)
KINDS = (
    "man/person woman/person boy/child girl/child men/people women/people baby/child dog/animal cat/animal "
    "horse/animal cow/animal bird/animal guitar/instrument piano/instrument violin/instrument drum/instrument "
    "car/vehicle truck/vehicle bus/vehicle motorcycle/vehicle apple/fruit banana/fruit carrot/vegetable "
    "potato/vegetable onion/vegetable bread/food cake/food meat/food shirt/clothing jacket/clothing "
    "football/sport tennis/sport rose/flower oak/tree hammer/tool knife/tool sofa/furniture chair/furniture "
    "slicing/cutting chopping/cutting running/moving walking/moving jogging/running shouting/speaking "
    "whispering/speaking frying/cooking boiling/cooking"
)


def word_pairs(text: str, both_ways: bool) -> dict[str, str]:
    """Read "a/b c/d" as what replaces what."""
    pairs = dict(pair.split("/") for pair in text.split())
    return pairs | ({pairs[first]: first for first in reversed(pairs)} if both_ways else {})


PASSIVE = word_pairs(PARTICIPLES, both_ways=False)
REPLACEMENTS = (word_pairs(OPPOSITES, True), word_pairs(NEIGHBOURS, True), word_pairs(KINDS, False))


def negate(sentence: str) -> str | None:
    """Add a negation, or take it away."""
    if found := NEGATION.search(sentence):
        auxiliary = found[1] or found[2] or {"can't": "can", "won't": "will"}[found[3].lower()]
        return sentence[: found.start()] + auxiliary + sentence[found.end() :]
    if AUXILIARY.search(sentence):
        return AUXILIARY.sub(r"\1 not", sentence, count=1)
    changed = re.sub(r"^(?:a|an|the|one|some|two) ", "no ", sentence, count=1, flags=re.I)
    return changed if changed != sentence else None


def swap(sentence: str) -> str | None:
    """Let subject and object change places."""
    found = TWO_PHRASES.search(sentence)
    return f"{found[3]} {found[2]} {found[1]}{sentence[found.end() :]}" if found else None


def make_passive(sentence: str) -> str | None:
    """Turn the progressive into the passive voice."""
    found = PROGRESSIVE.search(sentence)
    if not found:
        return None
    subject, auxiliary, stem, rest = found.groups()
    participle = PASSIVE.get(stem.lower(), f"{stem}ed")
    return f"{rest} {auxiliary} being {participle} by {subject}{sentence[found.end() :]}"


def replace(sentence: str, rng: random.Random) -> str | None:
    """Replace one word by its opposite, neighbour or kind."""
    words = sentence.split(" ")
    found = [
        (i, table[word.lower()]) for i, word in enumerate(words) for table in REPLACEMENTS if word.lower() in table
    ]
    if not found:
        return None
    place, word = rng.choice(found)
    return " ".join([*words[:place], word, *words[place + 1 :]])


def shorten(sentence: str) -> str | None:
    """Leave out where, how or with what."""
    found = ENDING.search(sentence)
    return found[1] if found else None


def reorder(sentence: str) -> str | None:
    """Let what "and" joins change places."""
    changed = CONJUNCTION.sub(r"\2 and \1", sentence, count=1)
    return changed if changed != sentence else None


def vary(sentence: str, rng: random.Random) -> str | None:
    """Return a variant of a sentence by a rule drawn at random; None if no rule fits."""
    rules: list[Callable[[str], str | None]] = [negate, swap, make_passive, shorten, reorder]
    rules.append(lambda text: replace(text, rng))
    text = sentence.rstrip(" .")
    return next((variant for rule in rng.sample(rules, len(rules)) if (variant := rule(text))), None)


@dataclass
class Clause:
    """Who does what: "a dog", "is", "running on the beach"."""

    subject: str
    auxiliary: str
    predicate: str


def parse_clause(sentence: str) -> Clause | None:
    """Take a sentence in the progressive, or a caption that leaves out "is", apart; None for any other."""
    found = CLAUSE.search(sentence.rstrip(" ."))
    if not found:
        return None
    subject, auxiliary, predicate = found.groups()
    if not auxiliary:
        singular = re.match("(?:a|an|one|another|each|every) ", subject, re.I) and " and " not in subject
        auxiliary = "is" if singular else "are"
    return Clause(subject[0].lower() + subject[1:], auxiliary.lower(), predicate)


def write_clause(clause: Clause, rng: random.Random) -> str:
    """Write a clause in a form drawn at random, two of six with a negation."""
    subject, auxiliary, predicate = clause.subject, clause.auxiliary, clause.predicate
    bare = re.sub(rf"^(?:{DETERMINERS}) ", "", subject)
    forms = (
        f"{subject} {auxiliary} {predicate}",
        f"the {bare} {auxiliary} {predicate}",
        f"{subject} {auxiliary} not {predicate}",
        f"there {auxiliary} no {bare} {predicate}",
        f"{subject}, who {auxiliary} {predicate}",
        f"there {auxiliary} {subject} {predicate}",
    )
    return rng.choice(forms)


def recombine(clauses: list[Clause], rng: random.Random) -> tuple[str, str]:
    """Make a sentence of the subject of one clause and the predicate of another, and a sentence close to it."""
    first, second = rng.choice(clauses), rng.choice(clauses)
    clause = Clause(first.subject, first.auxiliary, second.predicate)
    sentence = write_clause(clause, rng)
    change = rng.randrange(4)
    if change == 0:
        clause.subject, clause.auxiliary = second.subject, second.auxiliary
    elif change == 1:
        clause.predicate = first.predicate
    elif change == 2 and (variant := vary(sentence, rng)):
        return sentence, variant
    return sentence, write_clause(clause, rng)

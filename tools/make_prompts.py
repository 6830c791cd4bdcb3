"""Write the prompts that come with iglens: `python tools/make_prompts.py`.

Written for this project from public facts: no dataset was copied. Every line holds a
prompt that a language model goes on with one known answer, what it is about, and which
relation it asks for, so that results can be sliced. Sentences are made from the tables
and templates below; the same tables give the same bytes.
"""

import json
from collections.abc import Iterator
from pathlib import Path

PLACE = Path(__file__).parents[1] / "src/iglens/data/prompts.jsonl"

CAPITALS = """
Argentina:Buenos Aires Australia:Canberra Austria:Vienna Belgium:Brussels
Brazil:Brasília Bulgaria:Sofia Canada:Ottawa Chile:Santiago China:Beijing
Colombia:Bogotá Cuba:Havana Denmark:Copenhagen Egypt:Cairo Finland:Helsinki
France:Paris Germany:Berlin Greece:Athens Hungary:Budapest Iceland:Reykjavik India:New
Delhi Iran:Tehran Iraq:Baghdad Ireland:Dublin Israel:Jerusalem Italy:Rome Japan:Tokyo
Kenya:Nairobi Lebanon:Beirut Mexico:Mexico City Morocco:Rabat Nepal:Kathmandu
Norway:Oslo Pakistan:Islamabad Peru:Lima Poland:Warsaw Portugal:Lisbon
Romania:Bucharest Russia:Moscow Serbia:Belgrade Spain:Madrid Sweden:Stockholm
Syria:Damascus Thailand:Bangkok Tunisia:Tunis Turkey:Ankara Ukraine:Kyiv
Uruguay:Montevideo Venezuela:Caracas Vietnam:Hanoi
"""
CURRENCIES = """
Brazil:real China:yuan Denmark:krone Hungary:forint India:rupee Japan:yen Mexico:peso
Nigeria:naira Norway:krone Poland:zloty Russia:ruble Sweden:krona Switzerland:franc
Thailand:baht Turkey:lira Ukraine:hryvnia Vietnam:dong
"""
LANGUAGES = """
Austria:German Brazil:Portuguese China:Chinese Egypt:Arabic England:English
Finland:Finnish France:French Greece:Greek Hungary:Hungarian Iran:Persian
Italy:Italian Japan:Japanese Mexico:Spanish Netherlands:Dutch Norway:Norwegian
Poland:Polish Portugal:Portuguese Romania:Romanian Russia:Russian Sweden:Swedish
Turkey:Turkish Vietnam:Vietnamese
"""
SYMBOLS = """
hydrogen:H helium:He lithium:Li carbon:C nitrogen:N oxygen:O fluorine:F neon:Ne
sodium:Na magnesium:Mg aluminium:Al silicon:Si phosphorus:P sulfur:S chlorine:Cl
argon:Ar potassium:K calcium:Ca iron:Fe nickel:Ni copper:Cu zinc:Zn silver:Ag tin:Sn
gold:Au mercury:Hg lead:Pb uranium:U
"""
PLURALS = """
apple:apples book:books box:boxes bus:buses cat:cats child:children church:churches
city:cities dog:dogs fish:fish foot:feet goose:geese house:houses knife:knives
leaf:leaves life:lives man:men mouse:mice person:people potato:potatoes sheep:sheep
story:stories tooth:teeth tree:trees wife:wives wolf:wolves woman:women
"""
OPPOSITES = """
big:small black:white clean:dirty cold:hot dark:light day:night dry:wet early:late
easy:difficult empty:full fast:slow first:last good:bad happy:sad hard:soft
heavy:light high:low left:right long:short loud:quiet new:old north:south open:closed
rich:poor right:wrong strong:weak thick:thin true:false up:down young:old
"""
PAST = """
be:was begin:began break:broke bring:brought buy:bought come:came drink:drank eat:ate
fall:fell find:found fly:flew give:gave go:went know:knew leave:left lose:lost
make:made run:ran see:saw sing:sang speak:spoke take:took think:thought walk:walked
write:wrote
"""
SUCCESSORS = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October "
    "November December",
    "number": "one two three four five six seven eight nine ten eleven twelve",
    "letter": "A B C D E F G H I J K L M N O P",
}
NAMES = "Anna Ben Clara David Emma Frank Grace Henry Julia Kate Mary Peter Sarah Tom"
GIFTS = "book letter key ring flower drink"
PLACES = "store park school station house garden"

TABLES = (  # relation, kind, table, template
    ("capital", "factual", CAPITALS, "The capital of {} is"),
    ("currency", "factual", CURRENCIES, "The currency of {} is called the"),
    ("language", "factual", LANGUAGES, "The language that most people in {} speak is"),
    ("symbol", "factual", SYMBOLS, "The chemical symbol of {} is"),
    ("plural", "grammatical", PLURALS, "One {}, two"),
    ("past", "grammatical", PAST, "Today they {}; yesterday one of them"),
    ("opposite", "relational", OPPOSITES, 'The opposite of "{}" is "'),
)


def pairs(table: str) -> Iterator[tuple[str, str]]:
    """Subject and answer; an answer goes on up to the next word with a colon."""
    subject, answer = "", []
    for word in table.split():
        if ":" in word:
            if subject:
                yield subject, " ".join(answer)
            subject, first = word.split(":")
            answer = [first]
        else:
            answer.append(word)
    yield subject, " ".join(answer)


def from_tables() -> Iterator[dict[str, str]]:
    """Facts, forms and opposites."""
    for relation, kind, table, template in TABLES:
        for subject, answer in pairs(table):
            gap = "" if template.endswith('"') else " "
            yield line(relation, kind, template.format(subject), subject, gap + answer)


def successors() -> Iterator[dict[str, str]]:
    """Three in a row, and the next."""
    for name, text in SUCCESSORS.items():
        members = text.split()
        for at in range(len(members) - 3):
            shown = ", ".join(members[at : at + 3]) + ","
            subject = members[at + 2]
            answer = f" {members[at + 3]}"
            yield line(f"next {name}", "relational", shown, subject, answer)


def indirect_objects() -> Iterator[dict[str, str]]:
    """Two people, one of whom gives the other something."""
    names = NAMES.split()
    gifts, places = GIFTS.split(), PLACES.split()
    for at, giver in enumerate(names):
        for step in (1, 4, 9):
            other = names[(at + step) % len(names)]
            gift = gifts[(at + step) % len(gifts)]
            place = places[(at * 5 + step) % len(places)]
            for first, second in ((giver, other), (other, giver)):
                prompt = (
                    f"When {first} and {second} went to the {place}, {giver} gave a "
                    f"{gift} to"
                )
                yield line("indirect object", "relational", prompt, giver, f" {other}")


def line(
    relation: str, kind: str, prompt: str, subject: str, answer: str
) -> dict[str, str]:
    """One prompt, as it is written."""
    return {
        "relation": relation,
        "kind": kind,
        "prompt": prompt,
        "subject": subject,
        "answer": answer,
    }


def prompts() -> list[dict[str, str]]:
    """All of them, numbered within their relation."""
    found, counts = [], {}
    for each in (*from_tables(), *successors(), *indirect_objects()):
        counts[each["relation"]] = counts.get(each["relation"], 0) + 1
        name = each["relation"].replace(" ", "-")
        found.append({"id": f"{name}-{counts[each['relation']]:03}", **each})
    return found


def written() -> bytes:
    """The file."""
    lines = (json.dumps(each, ensure_ascii=False) for each in prompts())
    return ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    PLACE.write_bytes(written())
    print(f"{len(prompts())} prompts in {PLACE.name}")

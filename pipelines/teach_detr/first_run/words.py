"""Names of one thing that no rule of spelling makes one: what is proposed, never done by itself.

From the class lists of COCO, Objects365, LVIS and Open Images, and of the data sets that people
label for roads, building sites and homes.
"""

from collections.abc import Iterable, Sequence

from box_store.categories import normalised

_GROUPS = """
person people human man woman pedestrian worker
car automobile sedan suv sportscar
motorcycle motorbike motorscooter moped
bicycle bike cycle
airplane aeroplane plane aircraft
truck lorry pickuptruck heavytruck
bus coach minibus
boat ship vessel
train locomotive
trafficlight trafficsignal stoplight
firehydrant hydrant
stopsign trafficsign roadsign
dog puppy
cat kitten
cow cattle calf bull
horse pony foal
sheep lamb
couch sofa
tv monitor screen display
cellphone mobilephone smartphone phone telephone
laptop notebook laptopcomputer
diningtable table desk
refrigerator fridge
pottedplant plant houseplant
backpack rucksack schoolbag
handbag purse
suitcase luggage
cup mug
wineglass glass
sportsball ball football soccer basketball baseball
donut doughnut
hairdrier hairdryer blowdryer
umbrella parasol
helmet hardhat safetyhelmet
trashcan garbagebin trashbin dustbin wastebin
gloves glove
glasses eyeglasses spectacles
shoe sneakers boots boot leathershoes
"""
_GROUP_OF = {
    word: at for at, line in enumerate(_GROUPS.strip().splitlines()) for word in line.split()
}


def proposals(teacher: Sequence[str], missing: Iterable[str]) -> dict[str, str]:
    """Teacher class -> class of the data set, for classes that no name matches.

    One of one group of words, or, of names with several, of one last word ("fire truck", "truck");
    plurals are singulars.
    """
    found: dict[str, str] = {}
    for name in missing:
        for theirs in teacher:
            if theirs not in found and _alike(theirs, name):
                found[theirs] = name
    return found


def _alike(one: str, other: str) -> bool:
    a, b = _plain(one), _plain(other)
    if a == b or (a in _GROUP_OF and _GROUP_OF[a] == _GROUP_OF.get(b)):
        return True
    last = [_plain(name.replace("_", " ").replace("-", " ").split()[-1]) for name in (one, other)]
    return last[0] == b or last[1] == a


def _plain(name: str) -> str:
    """Normalised, in the singular."""
    bare = normalised(name)
    if bare in _GROUP_OF:
        return bare
    return bare[:-1] if bare.endswith("s") and not bare.endswith("ss") else bare

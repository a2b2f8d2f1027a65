"""Texts that a query is compared with: descriptions of piano music, and texts about anything else.

`calibration` learns from them, for any checkpoint, which queries describe music. No text tower was trained on this
list, and nothing in it depends on a checkpoint.
"""

import itertools
import random

from ..labels_pianobind import LABELS

MUSIC = """
slow and sad | a gentle lullaby | fast and furious | a happy little dance | calm, slow, rainy | stormy and dramatic |
late at night in an empty bar | a virtuoso concert etude | quiet ambient piano | a bluesy shuffle |
romantic and tender | a march with heavy chords | an elegant minuet | dark and mysterious |
bright and cheerful morning music | a melancholy waltz in a minor key | stride piano with a walking left hand |
a lonely melody over soft chords | music for studying | relaxing background music | an epic film theme |
a sentimental pop ballad | a love song | rolling arpeggios in the left hand | loud octaves and big leaps |
sparse notes with long pauses | a baroque fugue | a dreamy impressionist piece | music for sleeping |
a jumpy ragtime | playful staccato | a hymn | church music | sad anime opening | a song from a video game |
boss battle music | a Christmas song | birthday party music | soft and warm | angry and restless |
heroic and triumphant | nostalgic, like an old photograph | rain on the window | walking through snow |
a sunny day at the beach | something to cry to | something to dance to | fast jazz improvisation |
a slow blues in the low register | high, glittering runs | a simple tune for beginners | a very difficult showpiece |
repeated notes and minimal patterns | a tango | a samba rhythm | latin jazz | gospel chords | a funeral march |
a nocturne with rubato | theme and variations | a classical sonata movement | chords played with the sustain pedal |
dry, detached notes | crescendo to a loud climax | peaceful and meditative | anxious and tense |
mischievous and funny | a waltz in three four time | a steady beat in common time | swing feel | syncopated rhythm |
a folk song arrangement | piano cover of a pop song | a rock ballad on the piano | energetic workout music |
triumphant ending | a tender farewell | music box melody | circus music | spooky halloween music | wedding music |
a lament | pastoral and bright | bittersweet | hopeful but sad | joyful | gloomy | serene | passionate | delicate |
powerful | majestic | whimsical | intimate | cold and distant | elegant and light | chaotic | hypnotic | groovy |
smooth | haunting | longing | tragic | innocent
"""
OTHER = """
the tax return is due in April | how to change a bicycle tyre | a recipe for tomato soup | the bus leaves at nine |
my password does not work | please find the invoice attached | the goalkeeper saved a penalty | wet concrete |
buy milk and eggs | install the printer driver | the parliament passed a law | a map of the underground |
the patient has a fever | quarterly sales figures | SELECT name FROM users WHERE id = 7 | for i in range(10) |
select all images with traffic lights | cheap flights to Lisbon | my cat is under the table |
water boils at 100 degrees | the capital of Norway | square root of two | photosynthesis in green plants |
a wooden chair | wireless router settings | open a bank account | the car needs new brakes | a coupon for shampoo |
carrots | seventeen | a blue bicycle | terms and conditions apply | click here to unsubscribe |
error 404 page not found | the mayor opened the bridge | vaccination schedule for dogs |
how many calories are in rice | rental contract | the moon landing | steel pipes | potato salad with mustard |
a lawn mower for sale | football results of the weekend | laundry at forty degrees | the office is closed on Monday |
train strike announced | stock prices fell | dental insurance | a screw and a hammer | hello | what is your name |
lorem ipsum dolor sit amet | consectetur adipiscing elit | null pointer exception | kubernetes cluster upgrade |
compile the kernel | the lake froze over last winter | a kilo of onions | parking ticket | Wie spät ist es |
où est la gare | mañana por la mañana | buongiorno | das Wetter in Berlin | je ne sais pas |
the cow jumped over the fence | elephants have long trunks | a passport photo | shoe size 42 | refrigerator |
an electric drill | the third paragraph of the contract | mortgage rates | homework for chemistry |
volcano eruption | airport security | toothpaste | a can of paint | data protection officer | wheat harvest |
a jar of honey | asphalt | cardboard boxes | the plumber comes tomorrow | winter tyres | election results |
a bag of cement | tomato plants
"""
PAIRED_LABELS, SCRAMBLED = 90, 200
TEMPLATES = ("{} and {}", "{}, {}", "{} piano music, {}", "a {} piece, {}")


def music_texts() -> list[str]:
    """Descriptions of piano music: written ones, and labels in pairs."""
    chance = random.Random(0)
    pairs = chance.sample(list(itertools.combinations(LABELS, 2)), PAIRED_LABELS)
    paired = [template.format(*pair) for template, pair in zip(itertools.cycle(TEMPLATES), pairs, strict=False)]
    return [*_lines(MUSIC), *LABELS, *paired]


def other_texts() -> list[str]:
    """Texts of other subjects or languages, and letters in no order."""
    chance = random.Random(0)

    def scrambled():
        letters = chance.choice(("abcdefghijklmnopqrstuvwxyz", "asdfghjkl", "qwertyuiop", "zxcvbnm", "0123456789abc"))
        return "".join(chance.choices(letters, k=chance.randint(2, 9)))

    return [*_lines(OTHER), *(" ".join(scrambled() for _ in range(1 + row % 3)) for row in range(SCRAMBLED))]


def _lines(block: str) -> list[str]:
    return [text.strip() for text in block.replace("\n", " ").split("|") if text.strip()]


__all__ = ["music_texts", "other_texts"]

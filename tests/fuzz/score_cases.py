"""Hostile scores: sound ones whose elements, numbers and lines are changed, so that most pass the first checks."""

import re
import xml.etree.ElementTree as ET
from random import Random

from ..test_scores import ABC, ATTRIBUTES, KERN, MEI, REPEAT, dynamic, musicxml, note, words, zipped
from .byte_cases import NUMBERS, damaged

SCORE_FORMATS = ("musicxml", "xml", "mxl", "mei", "humdrum", "abc")
TUPLET = "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
TIE = '<tie type="start"/><notations><tied type="start"/><slur type="start" number="1"/></notations>'
ORNAMENTS = "".join(
    f"<notations><ornaments>{sign}</ornaments></notations>"
    for sign in ("<trill-mark/><accidental-mark>sharp</accidental-mark>", "<inverted-mordent/>", "<delayed-turn/>")
)
GRACE = "<note><grace/><pitch><step>D</step><octave>5</octave></pitch><voice>1</voice><type>eighth</type></note>"
ENDING = '<barline location="left"><ending number="1" type="start"/></barline>'
FULL = musicxml(
    f'<measure number="1">{ATTRIBUTES}{words("Allegro")}{dynamic("p")}{GRACE}'
    f"{note('C', extra=TIE)}{note('C')}</measure>"
    f'<measure number="2">{ENDING}{note("E", 5, 0.5, TUPLET) * 3}{note("G", extra=ORNAMENTS)}{REPEAT}</measure>'
    f'<measure number="3"><backup><duration>2</duration></backup><forward><duration>4</duration></forward>'
    f'<direction><direction-type><octave-shift type="up" size="8"/></direction-type></direction>{note("A", 3, 2)}'
    f'<direction><direction-type><wedge type="crescendo"/></direction-type></direction></measure>'
)
TIMEWISE = (
    FULL.replace("score-partwise", "score-timewise")
    .replace('<part id="P1">', "")
    .replace("</part>", "")
    .replace("</measure>", "</part></measure>")
)
TIMEWISE = re.sub(r"(<measure[^>]*>)", r'\1<part id="P1">', TIMEWISE)
ORNATE_MEI = (
    MEI.replace('<note pname="e"', '<note xml:id="e" pname="e"')
    .replace("<scoreDef ", '<scoreDef keysig="3s" ')
    .replace(
        "</measure>\n</section>",
        '<trill startid="#e" accidupper="f"/><turn startid="#e" form="lower"/></measure>\n</section>',
    )
)
ORNATE_KERN, ORNATE_ABC = KERN.replace("2ee", "2eeT"), ABC.replace("e2", "Te2")
ODD_WORDS = ("", "-1", "1e400", "nan", "Z", "0m+1e9", "#n1", "sf", "Presto", "§" * 300, "../../x", "1.5", "6/8")


def odd(random: Random) -> str:
    """A value that programs trip over."""
    return str(random.choice(NUMBERS)) if random.random() < 0.6 else random.choice(ODD_WORDS)


def changed_tree(random: Random, text: str) -> str:
    """XML that is still XML: elements doubled, dropped, moved or nested, texts and attributes odd."""
    root = ET.fromstring(text)
    for _ in range(random.randint(1, 8)):
        parents = [element for element in root.iter() if len(element)]
        if not parents:
            break
        parent = random.choice(parents)
        child = random.choice(list(parent))
        how = random.randrange(7)
        if how == 0:
            parent.remove(child)
        elif how == 1:
            parent.extend([child] * random.choice((1, 2, 30)))
        elif how == 2:
            random.choice(parents).append(ET.fromstring(ET.tostring(child)))
        elif how == 3:
            child.text = odd(random)
        elif how == 4 and child.attrib:
            child.set(random.choice(list(child.attrib)), odd(random))
        elif how == 5:
            child.tag = random.choice([element.tag for element in root.iter()])
        else:
            child.set(random.choice(("number", "dur", "xml-id", "type", "startid", "n", "plist")), odd(random))
    ET.register_namespace("", "http://www.music-encoding.org/ns/mei")
    return ET.tostring(root, "unicode")


def changed_lines(random: Random, text: str) -> str:
    """Lines and the words of lines doubled, dropped, moved or odd."""
    lines = text.split("\n")
    for _ in range(random.randint(1, 8)):
        at = random.randrange(len(lines))
        how = random.randrange(5)
        if how == 0 and len(lines) > 1:
            del lines[at]
        elif how == 1:
            lines[at:at] = [lines[at]] * random.choice((1, 2, 50))
        elif how == 2:
            lines[at], lines[-1] = lines[-1], lines[at]
        else:
            parts = re.split(r"(\W)", lines[at])
            place = random.randrange(len(parts))
            parts[place] = odd(random) if how == 3 else parts[place] * 2
            lines[at] = "".join(parts)
    return "\n".join(lines)


def score_case(random: Random, kind: str) -> bytes:
    """A score of a format of `SCORE_FORMATS`."""
    if kind in ("humdrum", "abc"):
        content = changed_lines(random, ORNATE_KERN if kind == "humdrum" else ORNATE_ABC).encode()
    else:
        text = {"mei": ORNATE_MEI, "xml": TIMEWISE}.get(kind, FULL)
        content = changed_tree(random, text).encode("utf-16" if kind == "xml" and random.random() < 0.3 else "utf-8")
    if kind == "mxl":
        content = zipped(content)
    return damaged(random, content, 3) if random.random() < 0.3 else content

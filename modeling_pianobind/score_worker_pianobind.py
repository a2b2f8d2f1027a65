"""The process in which verovio reads scores: a crash of its C++ code on damaged bytes ends only this process.

Run as a file, so that it imports nothing but verovio. It is asked on stdin and answers on stdout: 8 bytes of length,
then JSON. What marks mean is decided in `score_marks_pianobind`, where it needs no verovio.
"""

import importlib
import json
import os
import re
import sys
import xml.etree.ElementTree as ET  # nosec B405
from types import ModuleType

MAX_MEMORY_BYTES = 3 << 30
# Of one score; the longest of the corpus, of 4 MB, takes three.
CPU_SECONDS, CPU_SECONDS_A_MEGABYTE = 6, 4
MEI = "{http://www.music-encoding.org/ns/mei}"
SVG = "{http://www.w3.org/2000/svg}"
STAFF_LINE = re.compile(r"M(-?[\d.]+) (-?[\d.]+) L(-?[\d.]+) (-?[\d.]+)")
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
# The score as one endless line: no page layout is computed.
READING = {"breaks": "none", "xmlIdSeed": 1, "header": "none", "footer": "none"}
DRAWING = READING | {"breaks": "auto", "adjustPageHeight": True, "svgViewBox": True, "scale": 40, "pageWidth": 2100}
MARKS = ("tempo", "dir", "dynam", "hairpin")
MARK_ATTRIBUTES = ("form", "midi.bpm", "mm")
ORNAMENTS = ("trill", "mordent", "turn")
SCALE, SHARPS = "cdefgab", "fcgdaeb"
SEMITONES = dict(zip(SCALE, (0, 2, 4, 5, 7, 9, 11), strict=True))
ACCIDENTALS = {"s": 1, "f": -1, "ss": 2, "x": 2, "ff": -2, "n": 0}
KEY = re.compile("([1-7])([sf])")
TSTAMP2 = re.compile(r"(?:(\d+)m\s*\+\s*)?(\d+(?:\.\d+)?)")
SLIVERS = {"none", "128", "256", "512", "1024", "2048"}
REPEAT_SUFFIX = re.compile(r"-rend\d+$")


class Reader:
    """Answers requests with verovio."""

    def __init__(self):
        # By its name: transformers asks for everything that a published checkpoint's files import.
        verovio = importlib.import_module("verovio")
        verovio.enableLog(verovio.LOG_OFF)
        self._toolkit = verovio.toolkit()

    def answer(self, question: dict) -> dict:
        """`{"text", "kind", "do", "measure"}` -> what `read` or `draw` says, or `{"error"}`."""
        text, kind = question["text"], question["kind"]
        if kind == "timewise":
            text, kind = partwise(text), "xml"
        self._toolkit.setOptions((DRAWING if question["do"] == "draw" else READING) | {"inputFrom": kind})
        if not self._toolkit.loadData(text):
            return {"error": "verovio finds no music in it"}
        return self.draw(question["measure"]) if question["do"] == "draw" else self.read()

    def read(self) -> dict:
        """Notes as MIDI, when each measure begins, the staves, the ornaments, and the marks of tempo and dynamics."""
        events = self._events()
        if any(event["qstamp"] < 0 for event in events) and self._toolkit.loadData(self._without_slivers()):
            events = self._events()
        sounding = {name: event["qstamp"] for event in reversed(events) for name in event.get("on", ())}
        starts = self._starts(events)
        first = {name: at for at, name in reversed(starts)}
        document = _Measures(ET.fromstring(self._toolkit.getMEI({"removeIds": False})), sounding, first)  # nosec B314
        measures = [[at, *document.measures[name]] for at, name in starts if name in document.measures]
        return {
            "midi": self._toolkit.renderToMIDI(),
            "measures": measures,
            "staves": document.staves,
            "ornaments": self._ornaments(document.ornaments, events),
        }

    def _ornaments(self, signs: dict[str, list], events: list[dict]) -> list[list]:
        """The fields of an `Ornament` of each ornamented note, once for each time that it is played."""
        played = []
        for event in events if signs else ():
            for name in event.get("on", ()):
                sign = signs.get(REPEAT_SUFFIX.sub("", name))
                if sign is not None:
                    pitch = self._toolkit.getMIDIValuesForElement(name)["pitch"]
                    played.append([event["qstamp"], pitch, *sign])
        return played

    def _without_slivers(self) -> str:
        """The score without the shortest rests and the tuplets of nothing else.

        Programs write them where hands were notated freely; verovio adds their fractions up until its integers
        overflow, and times become negative.
        """
        root = ET.fromstring(self._toolkit.getMEI({"removeIds": False}))  # nosec B314
        for parent in list(root.iter()):
            for child in list(parent):
                silent = child.tag == f"{MEI}tuplet" and {inner.tag for inner in child} <= {f"{MEI}space"}
                if silent or (child.tag == f"{MEI}space" and child.get("dur", "none") in SLIVERS):
                    parent.remove(child)
        ET.register_namespace("", MEI[1:-1])
        self._toolkit.setOptions({"inputFrom": "mei"})
        return ET.tostring(root, "unicode")

    def _events(self) -> list[dict]:
        return self._toolkit.renderToTimemap({"includeMeasures": True, "includeRests": False})

    @staticmethod
    def _starts(events: list[dict]) -> list[tuple[float, str]]:
        """When each measure begins, in quarters with repeats, and its id, which is the same each time."""
        return [
            (event["qstamp"], REPEAT_SUFFIX.sub("", event["measureOn"])) for event in events if "measureOn" in event
        ]

    def draw(self, number: int) -> dict:
        """The page with a measure, counted as it is played, and where that page has measures.

        Returns:
            `{"svg", "size", "boxes"}`: the drawing, its width and height, and `[number, left, top, width, height]` of
            each measure that is on it, once for each time that it is played.
        """
        names = [name for _, name in self._starts(self._events())]
        page = self._toolkit.getPageWithElement(names[number]) if number < len(names) else 0
        if not page:
            return {"error": "verovio draws no such measure of it"}
        svg = self._toolkit.renderToSVG(page)
        root = ET.fromstring(svg)  # nosec B314
        width, height = (float(value) for value in root.get("viewBox").split()[2:])
        inner = next(element for element in root.iter(f"{SVG}svg") if element.get("class") == "definition-scale")
        scale = width / float(inner.get("viewBox").split()[2])
        margin = next(
            (
                element.get("transform", "")
                for element in inner.iter(f"{SVG}g")
                if element.get("class") == "page-margin"
            ),
            "",
        )
        left, top = (float(value) for value in [*re.findall(r"-?[\d.]+", margin), "0", "0"][:2])
        boxes = {}
        for measure in root.iter(f"{SVG}g"):
            if measure.get("class") == "measure":
                lines = [
                    line for staff in measure if staff.get("class") == "staff" for line in staff.iter(f"{SVG}path")
                ]
                matches = [STAFF_LINE.fullmatch(line.get("d", "")) for line in lines]
                points = [[float(value) for value in line.groups()] for line in matches if line]
                if points:
                    x, y, right, bottom = (
                        pick(column)
                        for pick, column in zip((min, min, max, max), zip(*points, strict=True), strict=True)
                    )
                    box = x + left, y + top, right - x, bottom - y
                    boxes[measure.get("id")] = [round(value * scale, 2) for value in box]
        placed = [[place, *boxes[name]] for place, name in enumerate(names) if name in boxes]
        return {"svg": svg, "size": [width, height], "boxes": placed}


class _Measures:
    """Measures, staves and marks of an MEI document.

    Args:
        root (`Element`): the document.
        sounding, starts (`dict`): by id, the quarter at which a note or a measure begins first.
    Attributes:
        measures (`dict`): by id: the measure's name, its meter `[count, unit]` or None, and its marks, each
            `at` a quarter from its beginning.
        staves (`list`): `[number, names, program]` of each staff.
        ornaments (`dict`): by the id of a note, `[kind, semitones up, semitones down, inverted, delayed]`.
    """

    def __init__(self, root: ET.Element, sounding: dict[str, float], starts: dict[str, float]):
        self.measures, self.staves, self.ornaments = {}, [], {}
        self._key = {}
        self._sounding, self._starts = sounding, starts
        self._meter = None
        for part in root.iter(f"{MEI}scoreDef"):
            if not self.staves:
                self._read_staves(part, [], None)
        self._walk(root)

    def _read_staves(self, element: ET.Element, names: list[str], program: str | None) -> None:
        for child in element:
            tag = child.tag.removeprefix(MEI)
            if tag not in ("staffGrp", "staffDef"):
                continue
            own = [_text(label) for label in child if label.tag in (f"{MEI}label", f"{MEI}labelAbbr")]
            own += [child.get("label", "")]
            played = (
                next((inner.get("midi.instrnum") for inner in child if inner.tag == f"{MEI}instrDef"), None) or program
            )
            all_names = names + [name for name in own if name]
            if tag == "staffDef":
                self.staves.append([child.get("n", ""), all_names, played])
            self._read_staves(child, all_names, played)

    def _walk(self, element: ET.Element) -> None:
        for child in element:
            tag = child.tag.removeprefix(MEI)
            if tag in ("scoreDef", "staffDef", "meterSig", "keySig", "staffGrp"):
                self._read_meter(child)
                self._read_key(child)
            if tag == "measure":
                name = child.get(XML_ID, "")
                marks = [
                    self._mark(inner, self._starts.get(name, 0.0))
                    for inner in child
                    if inner.tag.removeprefix(MEI) in MARKS
                ]
                number = child.get("n") or str(len(self.measures) + 1)
                self.measures[name] = [number, self._meter, marks]
                self._read_ornaments(child)
            elif len(child):
                self._walk(child)

    def _read_meter(self, element: ET.Element) -> None:
        for names in (("count", "unit"), ("meter.count", "meter.unit")):
            count, unit = (element.get(name, "") for name in names)
            if count.isdecimal() and unit.isdecimal() and int(count) and int(unit):
                self._meter = [int(count), int(unit)]

    def _read_key(self, element: ET.Element) -> None:
        signature = KEY.fullmatch(element.get("sig") or element.get("keysig") or "")
        if signature:
            letters = SHARPS if signature[2] == "s" else SHARPS[::-1]
            self._key = dict.fromkeys(letters[: int(signature[1])], 1 if signature[2] == "s" else -1)
        elif "0" in (element.get("sig"), element.get("keysig")):
            self._key = {}

    def _read_ornaments(self, measure: ET.Element) -> None:
        signs = {child.get("startid", "")[1:]: child for child in measure if child.tag.removeprefix(MEI) in ORNAMENTS}
        for staff in measure.iter(f"{MEI}staff") if signs else ():
            raised = {}  # what notes of the measure were, by letter and octave
            for element in staff.iter():
                if element.tag == f"{MEI}chord" and element.get(XML_ID) in signs:
                    top = max(element.iter(f"{MEI}note"), key=_height, default=element)
                    signs[top.get(XML_ID)] = signs[element.get(XML_ID)]
                if element.tag != f"{MEI}note" or element.get("pname") not in SEMITONES:
                    continue
                raised[_height(element)] = self._alteration(element)
                if (sign := signs.get(element.get(XML_ID))) is not None:
                    self.ornaments[element.get(XML_ID)] = self._ornament(sign, _height(element), raised)

    def _ornament(self, sign: ET.Element, height: int, raised: dict[int, int]) -> list:
        """What `ornaments` holds of a sign over a note on a step of the white keys."""
        pitch, steps = _white(height) + raised[height], []
        for step, attribute in ((1, "accidupper"), (-1, "accidlower")):
            other = height + step
            alteration = ACCIDENTALS.get(sign.get(attribute, ""))
            if alteration is None:
                alteration = raised.get(other, self._key.get(SCALE[other % 7], 0))
            steps.append(min(max(step * (_white(other) + alteration - pitch), 1), 3))
        kind, form = sign.tag.removeprefix(MEI), sign.get("form")
        inverted = form == ("upper" if kind == "mordent" else "lower")
        return [kind, *steps, inverted, sign.get("delayed") == "true"]

    def _alteration(self, note: ET.Element) -> int:
        """Semitones that a note is above its white key."""
        for element in (note, *note.iter(f"{MEI}accid")):
            for name in ("accid.ges", "accid"):
                if element.get(name) in ACCIDENTALS:
                    return ACCIDENTALS[element.get(name)]
        return self._key.get(note.get("pname"), 0)

    def _mark(self, element: ET.Element, measure_begin: float) -> dict:
        """A mark with `at`, and with `end` where it has one: `[measures later, quarter in that measure]`."""
        mark = {name: element.get(name) for name in MARK_ATTRIBUTES if element.get(name)}
        mark |= {"what": element.tag.removeprefix(MEI), "text": _text(element), "at": 0.0}
        quarters = 4 / self._meter[1] if self._meter else 1.0
        beat = TSTAMP2.fullmatch(element.get("tstamp", ""))
        begins, ends = (self._sounding.get(element.get(name, "")[1:]) for name in ("startid", "endid"))
        if beat:
            mark["at"] = max(0.0, float(beat[2]) - 1) * quarters
        elif begins is not None:
            mark["at"] = max(0.0, begins - measure_begin)
        if last := TSTAMP2.fullmatch(element.get("tstamp2", "")):
            mark["end"] = [int(last[1] or 0), max(0.0, float(last[2]) - 1) * quarters]
        elif ends is not None:
            mark["end"] = [0, max(0.0, ends - measure_begin)]
        return mark


def partwise(text: str) -> str:
    """MusicXML whose measures hold parts, as MusicXML whose parts hold measures, which verovio reads."""
    root = ET.fromstring(text)  # nosec B314
    score, parts = ET.Element("score-partwise", root.attrib), {}
    for child in root:
        if child.tag != "measure":
            score.append(child)
            continue
        for part in child.iter("part"):
            held = parts.setdefault(part.get("id", ""), ET.Element("part", part.attrib))
            ET.SubElement(held, "measure", child.attrib).extend(part)
    score.extend(parts.values())
    return ET.tostring(score, "unicode")


def _height(note: ET.Element) -> int:
    """The white key of a note's letter and octave, counted from C0."""
    octave = note.get("oct", "4")
    return 7 * (int(octave) if octave.isdecimal() else 4) + SCALE.index(note.get("pname", "c"))


def _white(height: int) -> int:
    """Semitones of a white key above C0."""
    return 12 * (height // 7) + SEMITONES[SCALE[height % 7]]


def _text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())[:200]


def _limit_memory(resource: ModuleType | None) -> None:
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def main() -> None:
    """Answers until stdin ends."""
    try:
        import resource
    except ImportError:  # not on Windows
        resource = None
    _limit_memory(resource)
    sys.setrecursionlimit(5_000)  # of nested elements; C's stack holds as many
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what verovio prints must not stand among the answers
    reader = Reader()
    while head := stdin.read(8):
        size = int.from_bytes(head, "little")
        question = json.loads(stdin.read(size))
        if resource is not None:  # the process ends there, and is started again for the next score
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            allowed = CPU_SECONDS + CPU_SECONDS_A_MEGABYTE * (size >> 20)
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + allowed, hard))
        try:
            answer = reader.answer(question)
        except MemoryError:
            answer = {"error": "it takes too much memory"}
        except (ET.ParseError, RecursionError, ValueError, KeyError) as error:
            answer = {"error": f"verovio's answer cannot be understood ({type(error).__name__})"}
        content = json.dumps(answer).encode()
        stdout.write(len(content).to_bytes(8, "little") + content)
        stdout.flush()


if __name__ == "__main__":
    main()

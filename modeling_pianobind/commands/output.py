"""What a search prints: a table, JSON, CSV or a playlist."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..index.embedding_index import Hit

COLUMNS = ("rank", "score", "path", "start_seconds", "end_seconds", "fit", "start_measure", "end_measure")


def as_table(hits: Sequence[Hit]) -> str:
    """A line a hit: rank, how well it fits, the best window, path."""
    lines = [f"{rank:4}  {_percent(hit.fit)}  {span(hit):>13}  {hit.path}" for rank, hit in enumerate(hits, 1)]
    return "".join(f"{line}\n" for line in lines)


def as_json(hits: Sequence[Hit]) -> str:
    """A list of objects with the keys `COLUMNS`; measures of scores only."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in _rows(hits)]
    rows = [
        {name: value for name, value in row.items() if value is not None or not name.endswith("_measure")}
        for row in rows
    ]
    return json.dumps(rows, indent=1) + "\n"


def as_csv(hits: Sequence[Hit]) -> str:
    """A table with the columns `COLUMNS`, for spreadsheets."""
    return csv_text(COLUMNS, _rows(hits))


def as_m3u8(hits: Sequence[Hit]) -> str:
    """A playlist; players that know `#EXTVLCOPT` start a piece at its best window."""
    return m3u8_text([(hit.path, None, hit.start_seconds) for hit in hits])


def m3u8_text(entries: Sequence[tuple[str, float | None, float | None]]) -> str:
    """A playlist of paths, each with its length and where it begins, in seconds; None where that is not known."""
    lines = ["#EXTM3U"]
    for path, seconds, start_seconds in entries:
        path = os.path.abspath(path)
        name = " ".join(os.path.splitext(os.path.basename(path))[0].split())
        lines.append(f"#EXTINF:{-1 if seconds is None else round(seconds)},{name}")
        if start_seconds:
            lines.append(f"#EXTVLCOPT:start-time={start_seconds:g}")
        lines.append(Path(path).as_uri() if set(path) & {"\n", "\r"} else path)  # an entry is one line
    return "".join(f"{line}\n" for line in lines)


def csv_text(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Rows as CSV, with a line of column names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def span(hit: Hit) -> str:
    """A hit's window as m:ss-m:ss, of a score with its bars; "" where there is none."""
    if hit.start_seconds is None:
        return ""
    bars = "" if hit.start_measure is None else f" bars {hit.start_measure}-{hit.end_measure}"
    return clock(hit.start_seconds, hit.end_seconds) + bars


def minutes_seconds(seconds: float) -> str:
    """A time as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def clock(start_seconds: float, end_seconds: float) -> str:
    """A span as m:ss-m:ss."""
    return f"{minutes_seconds(start_seconds)}-{minutes_seconds(end_seconds)}"


def _rows(hits: Sequence[Hit]) -> list[tuple]:
    return [(rank, *(getattr(hit, name) for name in COLUMNS[1:])) for rank, hit in enumerate(hits, 1)]


def _percent(fit: float | None) -> str:
    return "    " if fit is None else f"{round(100 * fit):3}%"


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv, "m3u8": as_m3u8}

__all__ = [
    "FORMATS",
    "as_csv",
    "as_json",
    "as_m3u8",
    "as_table",
    "clock",
    "csv_text",
    "m3u8_text",
    "minutes_seconds",
    "span",
]

"""Cells of a submission as HTML: text and pictures that are pictures, never anything live."""

from __future__ import annotations

import base64
import io
import re
import warnings
from html import unescape
from typing import Any

from nbformat import NotebookNode
from PIL import Image

from mbrl_autograder.judge.display import safe_outputs

from .html import text

MAX_PIXELS = 30_000_000
MAX_PAGE = 12_000_000  # characters of pictures on one page
MAX_SOURCE = 60_000
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_FIGURE = re.compile(r"<Figure size .*>|<PIL\..*>")
_LIVE = re.compile(r"<IPython\.core\.display\.\w+ object>|<IPython\.lib\.display\.\w+ .*>")


class Pictures:
    """Makes `img` elements, as many as one page can bear."""

    def __init__(self) -> None:
        """No picture yet."""
        self._room = MAX_PAGE

    def image(self, kind: str, data: str) -> str:
        """A picture from its base64 form, or a note where it is none or too much."""
        if not _is_picture(kind, data):
            return '<p class="soft small">(a picture that cannot be shown)</p>'
        if len(data) > self._room:
            return '<p class="soft small">(a picture is left out: there are too many on this page)</p>'
        self._room -= len(data)
        return f'<img alt="a picture from this cell" src="data:{kind};base64,{data}">'


def _is_picture(kind: str, data: str) -> bool:
    """Whether `data` decodes as what it says it is, and is not a small file of enormous size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a decompression bomb
            with Image.open(io.BytesIO(base64.b64decode(data)), formats=[FORMATS[kind]]) as image:
                if image.width * image.height > MAX_PIXELS:
                    return False
                image.verify()
    except Exception:  # Pillow raises many kinds for what is no picture
        return False
    return True


def source(cell: NotebookNode) -> str:
    """A cell's code."""
    code = str(cell.source)
    if len(code) > MAX_SOURCE:
        code = f"{code[:MAX_SOURCE]}\n... (cut here: the cell has {len(code)} characters)"
    return f"<pre>{text(code)}</pre>"


def written(cell: NotebookNode) -> str:
    """A written answer, as the text that it is."""
    return prose(str(cell.source))


def prose(markdown: str) -> str:
    """Markdown as the text that it is."""
    # The judge writes "&lt;" for "<" where a renderer would take it for HTML; here nothing is rendered.
    return f'<div class="answer">{text(unescape(markdown)[:MAX_SOURCE])}</div>'


def outputs(cell: NotebookNode, pictures: Pictures) -> str:
    """What stands below a cell, or "" where there is nothing."""
    parts = [_output(output, pictures) for output in safe_outputs(list(cell.get("outputs", [])))]
    inner = "".join(part for part in parts if part)
    return f'<div class="output">{inner}</div>' if inner else ""


def _output(output: Any, pictures: Pictures) -> str:
    if output.output_type == "stream":
        return _plain(output.text)
    if output.output_type == "error":
        return f'<pre class="bad">{text(_terminal(f"{output.ename}: {output.evalue}"))}</pre>'
    for kind in FORMATS:
        if kind in output.data:
            return pictures.image(kind, output.data[kind])
    shown = output.data.get("text/plain", "")
    if _LIVE.fullmatch(shown.strip()):
        return '<p class="soft small">(a film, a widget or other HTML, which is not shown here)</p>'
    return "" if _FIGURE.fullmatch(shown.strip()) else _plain(shown)


def _plain(shown: str) -> str:
    shown = _terminal(shown)
    return f"<pre>{text(shown)}</pre>" if shown.strip() else ""


def _terminal(shown: str) -> str:
    """Text as a terminal leaves it: without colours, and of a progress bar only its last state."""
    lines = _ANSI.sub("", shown).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)

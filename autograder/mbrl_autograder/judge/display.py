"""What people see of a submission: text and pictures, never live HTML or scripts."""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import nbformat
from nbformat import NotebookNode

from .results import PARTIAL, PASSED, CellResult

MAX_TEXT = 20_000
MAX_PICTURE = 3_000_000
MAX_OUTPUTS = 60
MAX_PIXELS = 50_000_000
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# bounded or possessive, so that no text takes long
_LINK = re.compile(r"(\]\s*+\(\s*+<?|\]:\s*+<?)\s*+(?:javascript|vbscript|data)\s*+:", re.I)
_ENTITY_LINK = re.compile(r"(\]\s*+\(|\]:)(\s*+[^)\n&]{0,300}+&[^)\n]*)")


def safe_markdown(text: str) -> str:
    """Markdown that shows its HTML instead of being it, and whose links run nothing.

    What looks like code is no exception: no pattern says where Markdown will see code and where it won't.
    """
    text = _LINK.sub(r"\1blocked:", _TAG.sub("&lt;", text[: 10 * MAX_TEXT]))
    return _ENTITY_LINK.sub(lambda match: match[1] + match[2].replace("&", "%26"), text)


def safe_data(data: Mapping[str, Any]) -> dict[str, str]:
    """Of a display's forms, the plain text and the pictures that are pictures."""
    kept: dict[str, str] = {}
    text = data.get("text/plain")
    if isinstance(text, list):
        text = "".join(part for part in text if isinstance(part, str))
    if isinstance(text, str):
        kept["text/plain"] = text[:MAX_TEXT]
    for kind, begin in PICTURES.items():
        value = data.get(kind)
        value = (
            "".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        )
        if isinstance(value, str) and len(value) <= MAX_PICTURE:
            try:
                raw = base64.b64decode("".join(value.split()), validate=True)
            except (binascii.Error, ValueError):
                continue
            if raw.startswith(begin) and _is_small(kind, raw):
                kept[kind] = base64.b64encode(raw).decode()
    return kept


def _is_small(kind: str, raw: bytes) -> bool:
    """Whether a picture unpacks to what a browser can hold."""
    if kind != "image/png":
        return True
    width, height = (int.from_bytes(raw[i : i + 4], "big") for i in (16, 20))
    return len(raw) > 24 and width * height <= MAX_PIXELS


def safe_outputs(outputs: Any) -> list[NotebookNode]:
    """A cell's outputs as they came with a submission, reduced to text and pictures."""
    kept: list[NotebookNode] = []
    for output in outputs[:MAX_OUTPUTS] if isinstance(outputs, list) else ():
        if not isinstance(output, dict):
            continue
        kind = output.get("output_type")
        if kind == "stream":
            text = output.get("text")
            text = "".join(str(part) for part in text) if isinstance(text, list) else str(text)
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            kept.append(nbformat.v4.new_output("stream", name=name, text=text[:MAX_TEXT]))
        elif kind in ("display_data", "execute_result") and isinstance(output.get("data"), dict):
            data = safe_data(output["data"])
            if data:
                kept.append(nbformat.v4.new_output("display_data", data=data))
        elif kind == "error":
            kept.append(_error(str(output.get("ename", "Error")), str(output.get("evalue", ""))))
    return kept


def run_outputs(shown: Mapping[str, Any]) -> list[NotebookNode]:
    """The outputs of a cell that the judge ran (`SubmissionResult.outputs`)."""
    outputs: list[NotebookNode] = []
    if shown.get("text"):
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=shown["text"][:MAX_TEXT]))
    for display in shown.get("displays", ())[:MAX_OUTPUTS]:
        data = safe_data(display["data"])
        if data:
            outputs.append(nbformat.v4.new_output("display_data", data=data))
    if shown.get("error"):
        outputs.append(_error(*map(str, shown["error"][:2])))
    return outputs


def _error(name: str, text: str) -> NotebookNode:
    name, text = name[:100], text[:2000]
    return nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])


def test_outputs(result: CellResult) -> list[NotebookNode]:
    """What stands under a test cell: the check's words, or the partial credit; never a hidden check."""
    if result.status == PASSED:
        return []
    if result.status == PARTIAL:
        text = f"{result.points:g} of {result.max_points:g} points"
        return [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return [_error(result.status, result.message or "The test did not pass.")]


def marked_notebook(
    notebook: NotebookNode,
    cells: Mapping[str, CellResult],
    outputs: Mapping[str, Mapping[str, Any]],
    keep: Sequence[str] = (),
) -> NotebookNode:
    """The notebook that a marker reads.

    Args:
        notebook: the submission, with locked and test cells from the source.
        cells: what the tests earned, by grade_id.
        outputs: what the run showed, by grade_id; other cells keep the outputs they came with, made safe.
        keep: ids of markdown cells that are the source's, and left as they are.

    Returns:
        A copy without live HTML or scripts.
    """
    marked = copy.deepcopy(notebook)
    for cell in marked.cells:
        flags = cell.metadata.get("nbgrader")
        name = flags.get("grade_id", "") if isinstance(flags, dict) else ""
        if cell.cell_type == "code":
            cell.execution_count = None
            if name in cells:
                cell.outputs = test_outputs(cells[name])
            elif name in outputs:
                cell.outputs = run_outputs(outputs[name])
            else:
                cell.outputs = safe_outputs(cell.get("outputs"))
        elif name not in keep:
            cell.source = safe_markdown(cell.source)
            cell.pop("attachments", None)
            if cell.cell_type == "raw":
                cell.cell_type = "markdown"
    return marked

"""The frame of a page: one file, its style within, no scripts, readable in light, dark and on paper."""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path

# Nothing is fetched and nothing runs, whatever might have slipped into a page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1d2433; --soft: #5a6474; --line: #d9dee7;
  --panel: #f5f7fa; --accent: #2f6fb3; --good: #1a7346; --part: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --back: #14181f; --text: #e6e9ef; --soft: #a4adbb;
  --line: #333b48; --panel: #1c222c; --accent: #7db2ec; --good: #6fce9b; --part: #e0b35c; --bad: #ff8f85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 52rem; background: var(--back);
  color: var(--text); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; }
a { color: var(--accent); }
.kicker, .soft { color: var(--soft); }
.kicker { margin: 0; font-size: .9rem; }
.small { font-size: .85rem; }
.good { color: var(--good); } .part { color: var(--part); } .bad { color: var(--bad); }
.total { font-size: 1.15rem; margin: .6rem 0 .3rem; }
.bar { height: .5rem; border-radius: .25rem; background: var(--line); overflow: hidden; }
.bar > div { height: 100%; background: var(--accent); }
.notice { border-left: .25rem solid var(--part); background: var(--panel); padding: .5rem .9rem;
  margin: 1rem 0; }
.exercise { border-top: 1px solid var(--line); margin-top: 2rem; }
.exercise > h2 { margin-top: 1rem; display: flex; justify-content: space-between; gap: 1rem; }
h1, h2, h3, p, summary, .what, .answer, .comment, .notice { overflow-wrap: anywhere; }
.exercise > h2 > :first-child { min-width: 0; }
.points { white-space: nowrap; font-variant-numeric: tabular-nums; }
ul.checks { list-style: none; margin: .5rem 0; padding: 0; }
ul.checks > li { display: grid; grid-template-columns: 1.4rem 1fr auto; gap: 0 .4rem; padding: .45rem 0; }
ul.checks > li + li { border-top: 1px dashed var(--line); }
ul.checks .what { min-width: 0; }
.said { margin: .25rem 0; white-space: pre-wrap; }
details { margin: .3rem 0; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
pre { margin: .4rem 0; padding: .6rem .8rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: .35rem; overflow-x: auto; font: .82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.output pre { background: none; border-style: dashed; max-height: 30rem; overflow-y: auto; }
.output img { max-width: 100%; height: auto; background: #fff; border-radius: .35rem; display: block;
  margin: .4rem 0; }
.answer { white-space: pre-wrap; background: var(--panel); border-radius: .35rem; padding: .6rem .9rem; }
.comment { white-space: pre-wrap; border-left: .25rem solid var(--accent); padding: .3rem .9rem;
  margin: .6rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
svg { display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .8rem; }
.pair > div { min-width: 0; }
@media print { :root { --back: #fff; --text: #000; --soft: #444; --line: #bbb; --panel: #f6f6f6;
    --accent: #1d5c9c; --good: #14603a; --part: #6f4800; --bad: #9c1f18; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  pre { white-space: pre-wrap; }
  .output pre { max-height: none; }
  .bar > div, .notice, svg * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, summary { break-after: avoid; } ul.checks > li, .output img { break-inside: avoid; } }
"""


def page(title: str, body: str, width: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML; whatever came from a submission is escaped in it already.
        width: another width of the text than that of a letter, such as "72rem".
    """
    style = STYLE + (f"body {{ max-width: {width}; }}\n" if width else "")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """`value` as text of a page; what would not be seen in a browser becomes a blank."""
    return escape(_CONTROL.sub(" ", str(value)))


# control characters, marks that turn the direction of text, halves of characters
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def number(value: float) -> str:
    """A mark as people write it: 3 or 2.5."""
    return format(round(value, 2), "g")


def count(amount: int, noun: str, plural: str = "") -> str:
    """For example "1 student" and "3 students"."""
    return f"{amount} {noun if amount == 1 else plural or noun + 's'}"


def write(path: Path, content: str) -> Path:
    """Puts a file in place at once, never half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(content, encoding="utf-8", errors="replace")
    os.replace(draft, path)
    return path

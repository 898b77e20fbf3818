"""Pairs of summary line and description from the documentation strings of installed Python packages.

Files are read with `ast`, never imported. Markup is taken off, and only English prose is kept.
"""

import ast
import gc
import os
import random
import re
import sysconfig
import warnings
from pathlib import Path

SKIPPED_FOLDERS = {"__pycache__", "test", "tests", "testing", "site-packages", "dist-packages", "_vendor"}
FUNCTION_WORD = re.compile(
    r"\b(?:a|an|and|are|as|at|be|but|by|can|do|does|each|for|from|has|have|if|in|into|is|it|its|may|more|must|no"
    r"|not|of|on|only|or|other|should|so|such|than|that|the|their|then|there|these|they|this|to|use|used|using"
    r"|was|we|when|where|which|will|with|would|you|your)\b",
    re.I,
)
SECTION = re.compile(r"[A-Z][\w /]{0,30}:\s*$|.*\n\s*[-=~^]{3,}\s*$|:\w+|@\w+", re.M)
NOT_PROSE = re.compile(r"^\s|^(?:>>>|\.\. |[-*+|=#@$<>:!~]|\d+[.)] )| {3,}|\t|:\s*\Z|->|copyright", re.M | re.I)
MARKUP = [
    (re.compile(r":[\w:+-]+:`[~!]?\.?([^`<]*[^`<\s])(?:\s*<[^`>]*>)?`"), r"\1"),  # :class:`~a.B`
    (re.compile(r"`([^`<]*[^`<\s])\s*<[^`>]*>`_{1,2}"), r"\1"),  # `text <address>`_
    (re.compile(r"\[([^\]\[]+)\](?:\([^)\s]*\)|(?<=`\]))"), r"\1"),  # [text](address), [`Name`]
    (re.compile(r" ?\[\w+\]_"), ""),  # [1]_
    (re.compile(r"(``?|\*\*?)(\S|\S.*?\S)\1_{0,2}"), r"\2"),  # ``code``, **strong**
]


def docstring_files(seed: int) -> list[Path]:
    """Return the Python files of the standard library and the installed packages, shuffled by `seed`."""
    files = []
    for root in dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
            files += [Path(folder, name) for name in names if name.endswith(".py")]
    files.sort()
    random.Random(seed).shuffle(files)
    return files


def docstrings(source: bytes) -> list[str]:
    """Return the triple-quoted documentation of a Python file, without indentation. Raises what ast raises."""
    found: list[str] = []
    if b'"""' not in source and b"'''" not in source:
        return found
    gc.disable()  # a syntax tree has no cycles: looking for them takes as long as parsing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stack: list[ast.AST] = [ast.parse(source)]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(ast.get_docstring(node) or "")
            stack += [child for child in getattr(node, "body", []) if hasattr(child, "body")]
    finally:
        gc.enable()
    return [text.encode(errors="ignore").decode() for text in found if text]


def plain(paragraph: str) -> str:
    """Join the lines of a paragraph and take off reStructuredText and Markdown."""
    text = " ".join(paragraph.split())
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return text


def is_prose(text: str) -> bool:
    """Tell English sentences from lists, code and other languages."""
    words = len(text.split())
    letters = sum(map(str.isalpha, text)) + words
    return (
        words >= 6
        and text[0].isalpha()
        and text.endswith((".", "!", "?", ".)", '."'))
        and letters >= 0.8 * len(text)
        and len(FUNCTION_WORD.findall(text)) >= 0.15 * words
    )


def parse_docstring(docstring: str) -> tuple[str, str]:
    """Return (summary line, description) as plain text; what the docstring lacks is empty."""
    first, *others = re.split(r"\n\s*\n", docstring.strip())
    summary = plain(first)
    words = summary.split()
    if SECTION.match(first) or NOT_PROSE.search(first) or len(words) < 2 or "(" in words[0]:
        return "", ""
    if not (summary[0].isupper() and summary.isprintable()):
        return "", ""
    for paragraph in others:
        if SECTION.match(paragraph):
            break  # what follows describes single parameters
        text = plain(paragraph)
        if not NOT_PROSE.search(paragraph) and is_prose(text):
            return summary, text
    return summary, ""

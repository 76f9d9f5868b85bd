"""Check the voice of the project's text: plain English of the field.

    python tests/voice.py [FILE OR FOLDER …]     prints each sentence that breaks a rule

Code between backticks and in fenced blocks is left out.
"""

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WHERE = ("src", "launch", "docs", "README.md")

HEADLESS = re.compile(r"(What|Whether|Which|Who|Whose|All that|How|Where|That which)\b(?!.*\?$)", re.DOTALL)
"""Opens a sentence that has no noun to hang on. A question may."""

WORDS = {
    r"mend(s|ed|ing)?": "fix",
    r"told|said": "reported, printed",
    r"(is|are|was|were|be|been) asked|asked for|asks? for": "probed; requested",
    r"h(a|u)ngs? on": "depends on",
    r"anew": "again",
    r"otherwise": "differently, or else",
    r"go(es)? on|going on|went on": "continue, resume",
    r"put(s|ting)? aside": "rename",
    r"no number": "NaN or Inf",
    r"beginnings": "prefixes",
    r"learnt": "trained, supervised",
    r"levers?": "optimization",
    r"verdicts?": "probe result",
    r"(?<!model )(?<!Model )cards?": "run summary",
    r"stands? alike": "is at the same step",
    r"but for": "except",
    r"beside": "next to",
    r"in words": "as text",
    r"take(s|n)? apart": "restore",
    r"\w*(recogn|initial|quant|normal|organ|summar|serial|optim|minim|maxim|token)is(e|es|ed|ing|er|ation)": "-ize",
    r"(colou|behaviou|favou|neighbou|honou|labou)r\w*": "-or, as in color",
    r"(label|model|cancel|travel|signal)l(ed|ing)": "one l, as in labeled",
    r"(grey|artefacts?|centre|catalogue|programme)": "gray, artifact, center, catalog, program",
}
LISTED = re.compile(rf"(?<![\w-])(?:{'|'.join(f'(?:{word})' for word in WORDS)})(?![\w-])", re.IGNORECASE)
MEDIAN, LONGEST = 12, 30
"""Words of a docstring's first sentence, over the whole project."""


class Text(NamedTuple):
    """A piece of prose and its place."""

    file: Path
    line: int
    kind: str
    text: str


def texts(places: list[Path]) -> Iterator[Text]:
    """Yield docstrings, comments and messages of Python files, and the paragraphs of Markdown files."""
    for place in places:
        files = sorted(p for p in place.rglob("*") if p.suffix in (".py", ".md")) if place.is_dir() else [place]
        for file in files:
            if "__pycache__" not in file.parts:
                yield from _of_python(file) if file.suffix == ".py" else _of_markdown(file)


def _of_python(file: Path) -> Iterator[Text]:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for one in body if isinstance(body, list) else []:
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                docstrings.add(one.value)
                yield Text(file, one.lineno, "docstring", one.value.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield Text(file, node.lineno, "message", _joined(node))
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings | inside:
            yield Text(file, node.lineno, "message", node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(file, token.start[0], "comment", token.string.lstrip("# "))


def _joined(node: ast.JoinedStr) -> str:
    return "".join(part.value if isinstance(part, ast.Constant) else "`…`" for part in node.values)


def _of_markdown(file: Path) -> Iterator[Text]:
    fenced, paragraph, began = False, [], 1
    for number, line in enumerate([*file.read_text(encoding="utf-8").splitlines(), ""], start=1):
        if line.startswith("```"):
            fenced = not fenced
        elif line.strip() and not fenced:
            began = began if paragraph else number
            paragraph.append(line)
            continue
        if paragraph:
            yield Text(file, began, "paragraph", "\n".join(paragraph))
        paragraph = []


def problems(text: Text) -> Iterator[str]:
    """Yield what is wrong with one piece of prose."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>", "``", text.text)
    if text.kind == "message" and prose.count(" ") < 3:
        return  # a key, a path, a format
    if text.kind in ("docstring", "message") and HEADLESS.match(prose.strip()):
        yield "opens with a headless clause; name the thing first"
    for found in LISTED.finditer(prose):
        word = found.group()
        instead = next(better for pattern, better in WORDS.items() if re.fullmatch(pattern, word, re.IGNORECASE))
        yield f"{word!r}: {instead}"
    if text.kind == "docstring" and (words := first_sentence_words(text)) > LONGEST:
        yield f"first sentence has {words} words; at most {LONGEST}"


def first_sentence_words(text: Text) -> int:
    """Return how many words the first sentence of a docstring has."""
    first = re.split(r"(?<=[.!?])\s|\n\s*\n", text.text.strip(), maxsplit=1)[0]
    return len(first.split())


def median_words(found: list[Text]) -> float:
    """Return the median length, in words, of the docstrings' first sentences; 0 where there is none."""
    return statistics.median([first_sentence_words(text) for text in found if text.kind == "docstring"] or [0])


def main(arguments: list[str]) -> int:
    """Print each problem, and return how many there are."""
    found = list(texts([Path(argument) for argument in arguments] or [ROOT / name for name in WHERE]))
    count = 0
    for text in found:
        for problem in problems(text):
            count += 1
            print(f"{text.file}:{text.line}: {text.kind}: {problem}\n    {' '.join(text.text.split())[:140]}")
    print(f"{count} problems; median first sentence {median_words(found)} words (at most {MEDIAN})")
    return count


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))

r"""Right answers in the dress of Markdown, LaTeX, HTML and Unicode, for the tests and for `fuzz.py`.

An answer is drawn as a value and written down, so what is right is known without any parser. Dresses are put one upon the
other, up to three deep: `**$\boxed{-\frac{3}{4}}$**`.
"""

from __future__ import annotations

from fractions import Fraction
from random import Random

WRAPPINGS = [
    "**{}**", "*{}*", "_{}_", "__{}__", "***{}***", "`{}`", "``{}``", "${}$", "$${}$$", "\\({}\\)",
    "\\[ {} \\]", "\\boxed{{{}}}", "\\text{{{}}}", "\\mathrm{{{}}}", "\\mathbf{{{}}}", "\\textbf{{{}}}",
    "\\fbox{{{}}}", "\\underline{{{}}}", "\\left({}\\right)", "\\displaystyle {}", "({})", "[{}]", '"{}"',
    "\u201c{}\u201d", "\u00ab{}\u00bb", "'{}'", "\u2018{}\u2019", "<b>{}</b>", "<strong>{}</strong>",
    "<code>{}</code>", "{{{}}}", "\\large {}", "{{\\bf {}}}", " {} ", "\u200b{}\u200b", "\ufeff{}",
]  # fmt: skip
BLOCKS = ["```\n{}\n```", "~~~\n{}\n~~~", "\n{}\n", "<answer>{}</answer>", "{}\\\\", "\t{}"]
SENTENCES = [
    "{}", "{}.", "{}!", "The answer is {}.", "Answer: {}", "**Answer:** {}", "= {}", "So it is {}", "# {}",
    "> {}", "| {} |", "\u2022 {}", "### {}", "Final answer: {}", "the result is:\n{}", "{}\n\nThat is all.",
    "\u2192 {}", "=> {}", "{} ##### {}",
]  # fmt: skip
MINUS = [
    "-", "\u2212", "\u2013", "\u2012", "\u2011", "\u2010", "\uff0d", "\ufe63", "\\-", "minus ", "negative ", "&minus;",
]  # fmt: skip
CURRENCIES = ["", "", "", "$", "\\$", "\u20ac", "\u00a3", "USD "]
UNITS = ["", "", "", " apples", "%", "\\%", " km", "\u00b0", " \\text{ cm}", "^\\circ", " ($x$)"]
THOUSANDS = [",", "{,}", "\\,", "\u202f", "\u00a0", "'", ",\\!"]
FRACTIONS = [
    "{}/{}", "{} / {}", "{}\u2044{}", "\\frac{{{}}}{{{}}}", "\\dfrac{{{}}}{{{}}}", "\\tfrac{{ {} }}{{ {} }}",
    "\\cfrac{{{}}}{{{}}}", "\\frac {{{}}} {{{}}}", "{{{} \\over {}}}",
    "\\frac{{\\text{{{}}}}}{{\\mathbf{{{}}}}}", "({})/({})",
]  # fmt: skip
SHORT_FRACTIONS = ["\\frac{}{}", "\\frac {} {}", "\\frac{{{}}}{}", "\\frac{}{{{}}}"]
MIXED = ["{} {}/{}", "{}\\frac{{{}}}{{{}}}", "{}\\,\\tfrac{{{}}}{{{}}}", "{} \\dfrac{{{}}}{{{}}}"]
VULGAR = {Fraction(1, 2): "\u00bd", Fraction(2, 3): "\u2154", Fraction(3, 4): "\u00be", Fraction(5, 8): "\u215d"}
SCRIPTS = [0xFF10, 0x660, 0x966, 0x1D7CE]
LABELS = [
    "{}",
    "{}.",
    "{})",
    "({})",
    "{}: Paris",
    "{}. Paris is big",
    "{}) Vitamin K",
    "**{}** paralysis of the face",
    "{}, I think",
]


def dress(rng: Random, text: str) -> str:
    """The text in up to three wrappings and a sentence."""
    for _ in range(rng.randint(0, 3)):
        text = rng.choice(WRAPPINGS + BLOCKS).format(text)
    sentence = rng.choice(SENTENCES)
    return sentence.format(*[text] * sentence.count("{}"))


def digits(rng: Random, number: int) -> str:
    """A whole number that is not negative, in one of its notations."""
    plain, grouped = str(number), f"{number:,}"
    script = rng.choice(SCRIPTS)
    return rng.choice([
        plain, grouped, f"{plain}.0", f"{grouped}.00", grouped.replace(",", rng.choice(THOUSANDS)), f"{number}/1",
        "".join(chr(script + int(digit)) for digit in plain), f"{plain} \\times 10^{{0}}", f"{number}e0",
    ])  # fmt: skip


def size(rng: Random, value: Fraction) -> str:
    """A number that is not negative, in one of its notations."""
    if value.denominator == 1:
        return digits(rng, value.numerator)
    whole, rest = divmod(value, 1)
    above, below = value.numerator, value.denominator
    forms = [rng.choice(FRACTIONS).format(above, below)]
    if above < 10 and below < 10:
        forms.append(rng.choice(SHORT_FRACTIONS).format(above, below))
    if whole:
        forms.append(rng.choice(MIXED).format(whole, rest.numerator, rest.denominator))
    if rest in VULGAR:
        forms.append(f"{whole or ''}{VULGAR[rest]}")
    if 10_000 % below == 0:
        forms.append(f"{float(value):.4f}")
        forms += [f"{float(value):.4f}".removeprefix("0")] if not whole else []
    return rng.choice(forms)


def number(rng: Random, value: Fraction | int | None = None) -> tuple[str, Fraction]:
    """A text that gives a number, and the number: `value`, or one that is drawn."""
    if value is None:
        drawn = [
            rng.randint(-20, 20),
            rng.randint(-99_999, 9_999_999),
            Fraction(rng.randint(-40, 40), rng.randint(2, 9)),
        ]
        value = rng.choice(drawn)
    value = Fraction(value)
    text, currency = size(rng, abs(value)), rng.choice(CURRENCIES)
    if value < 0:
        wrapped = rng.choice(WRAPPINGS).format(text).strip(" ") if rng.random() < 0.5 else text  # "is - 3" has a dash
        minus = rng.choice(MINUS)
        text = minus + currency + wrapped if rng.random() < 0.6 else currency + minus + wrapped
    else:
        text = currency + text
    return dress(rng, text + rng.choice(UNITS)), value


def neighbours(value: Fraction) -> list[Fraction]:
    """Numbers that are not `value` and near it: off by one, of the other sign, upside down, ten times as large."""
    near = [value + 1, value - 1, -value, 10 * value, value / 1000, 1 / value if value else Fraction(1)]
    return [other for other in near if other != value]


def letter(rng: Random) -> tuple[str, str]:
    """A text that names a letter, and the letter."""
    name = rng.choice("ABCD")
    written = rng.choice([name, name, name, chr(ord(name) + 0xFEE0), chr(ord(name) - ord("A") + 0x24B6)])
    return dress(rng, rng.choice(LABELS).format(written)), name

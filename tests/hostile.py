"""Texts that somebody could put into a completion, a question, an id or a name, to harm whoever looks at it."""

TEXTS = [
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # OSC 52: into the clipboard
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\x9b31m\x9d52;c;eA==\x9c",  # the same as C1 controls
    "\x00\x01\x08\x7f\x0b\x0c",
    "over\rwritten",
    "a \u202egnp.exe\u202c \u2066isolated\u2069",
    "half \ud83d of a pair \udc00",
    "no character \ufffe\uffff \U000e0041",
    "</script><script>alert(1)</script>",
    "]]><!-- --> & < > \" ' &amp; &#x1b;",
    "\\input{/etc/passwd} \\write18{id} $x^2$ 100% #1 a_b ~^ {",
    '=HYPERLINK("http://example.org","click")',
    "@SUM(1,1)",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "| a | b |\n|---|---|\n[link](javascript:alert(1)) `code` **bold**",
    "[bold]markup[/bold] [link=file:///etc]x[/link]",
    "lines\u2028and\u2029ends\x85here",
    "{{ 7 * 7 }} {% raw %}",
    # nothing hostile, and must stay
    "\u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f600 e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467",
]

EVERYTHING = " ".join(TEXTS)

KEPT = TEXTS[-1]
"""What every output shows as it stands."""

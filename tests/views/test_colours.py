"""Pages are readable on a light and on a dark ground: contrast by WCAG 2, of the colours that stand in the templates."""

import re

import pytest
from conftest import ROOT

CARD, REPORT = (
    (ROOT / "atmanrl/views" / name).read_text() for name in ("trace_card.html.jinja", "report_page.html.jinja")
)
DARK = r"@media \(prefers-color-scheme: dark\) \{(.*?)\n\}"


def colours(template):
    """Variables of a template's style on a light ground, and on a dark one."""
    dark = re.search(DARK, template, re.DOTALL)[1]
    light = dict(re.findall(r"--([\w-]+): ([^;]+);", template.replace(dark, "")))
    return light, light | dict(re.findall(r"--([\w-]+): ([^;]+);", dark))


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)] if colour[0] == "#" else [int(c) for c in colour.split()]


def luminance(colour):
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(colour, ground, share):
    return [share * a + (1 - share) * b for a, b in zip(colour, ground, strict=True)]


SCHEMES = [{**card, **page} for card, page in zip(colours(CARD), colours(REPORT), strict=True)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_text_is_readable_on_its_ground(scheme):
    card, ground = rgb(scheme["card"]), rgb(scheme["ground"])
    for name in ("ink", "dim", "right", "wrong"):
        for behind in (card, ground):
            assert contrast(rgb(scheme[name]), behind) >= 4.5, name
    for name in ("number", "symbol", "stop"):
        ink = rgb(scheme["stop-ink" if name == "stop" else "ink"])
        assert contrast(ink, rgb(scheme[name])) >= 4.5, name


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
@pytest.mark.parametrize("hue", ["above", "below"])
def test_a_token_of_any_saliency_is_readable_and_tells_its_sign(scheme, hue):
    card, strength = rgb(scheme["card"]), float(scheme["strength"])
    for tenth in range(11):
        assert contrast(rgb(scheme["ink"]), mixed(rgb(scheme[hue]), card, strength * tenth / 10)) >= 4.5, (hue, tenth)
    full = mixed(rgb(scheme[hue]), card, strength)
    assert contrast(full, card) >= 1.5  # and stands out from 0, which has the ground's colour

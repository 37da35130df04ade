"""Stories about things that are counted: each function draws the numbers of one kind and tells it in English."""

from __future__ import annotations

from random import Random

from atmanrl.tasks.stories import PEOPLE, THINGS, Step, Story, wordings


def collection(rng: Random) -> Story:
    """Someone gets some, gives some away and perhaps shares the rest: + - and sometimes exact division."""
    one_of = wordings(rng)
    name, he, his = rng.choice(PEOPLE)
    thing = rng.choice(THINGS)
    friends = rng.choice((1, 1, 2, 3, 4, 5))
    left = friends * rng.randint(3, 15 if friends > 1 else 60)
    gets, gives = rng.randint(5, 60), rng.randint(4, 40)
    start = left + gives - gets
    if start < 3:
        start, left = start + 60, left + 60
    gained = one_of(
        f"{name} buys {gets} more.",
        f"A friend gives {name} {gets} more {thing}.",
        f"Then {he} finds {gets} {thing} in a drawer.",
    )
    lost = one_of(
        f"Later {he} gives {gives} of them to {his} brother.",
        f"On the way home {he} loses {gives} of them.",
        f"The next day {he} sells {gives} {thing}.",
    )
    steps = [
        Step(f"With the new ones {name} has", f"{start} + {gets}", start + gets, thing),
        Step(f"After that {name} has", f"{start + gets} - {gives}", left, thing),
    ]
    if friends > 1:
        ask = f"{name} shares the rest equally among {friends} friends. How many {thing} does each friend get?"
        steps.append(Step("Each friend gets", f"{left} / {friends}", left // friends, thing))
    else:
        ask = f"How many {thing} does {name} have now?"
    text = f"{name} has {start} {thing}. {gained} {lost} {ask}"
    return Story("collection", (start, gets, gives, friends), text, tuple(steps))


def boxes(rng: Random) -> Story:
    """Boxes of things, some lost, the rest packed again: x - and exact division."""
    one_of = wordings(rng)
    name, he, _ = rng.choice(PEOPLE)
    thing = rng.choice(THINGS)
    bags, each = rng.randint(2, 9), rng.randint(2, 12)
    n, k = rng.randint(3, 9), rng.randint(4, 12)
    while n * k <= bags * each:
        n, k = n + 1, k + 1
    lost = n * k - bags * each
    has = one_of(
        f"{name} has {n} boxes with {k} {thing} in each.", f"There are {k} {thing} in a box, and {name} has {n} boxes."
    )
    gone = one_of(
        f"{lost} {thing} are broken and thrown away.", f"{he.capitalize()} gives {lost} {thing} to a neighbor."
    )
    ask = one_of(
        f"The rest goes into bags of {each}. How many bags does {name} need?",
        f"{name} packs the rest in bags with {each} {thing} in each bag. How many bags are there?",
    )
    steps = (
        Step("The boxes hold", f"{n} * {k}", n * k, thing),
        Step("The rest is", f"{n * k} - {lost}", n * k - lost, thing),
        Step(f"So {name} needs", f"{n * k - lost} / {each}", bags, "bags"),
    )
    return Story("boxes", (n, k, lost, each), f"{has} {gone} {ask}", steps)


def reading(rng: Random) -> Story:
    """A book read in two paces: x - and exact division."""
    one_of = wordings(rng)
    name, he, _ = rng.choice(PEOPLE)
    pace, days = rng.randint(5, 20), rng.randint(2, 6)
    later, rest = rng.randint(2, 8), rng.randint(4, 20)
    pages = pace * days + later * rest
    book = one_of(
        f"{name} reads a book of {pages} pages.", f"A book has {pages} pages, and {name} wants to read all of it."
    )
    first = one_of(
        f"{he.capitalize()} reads {pace} pages a day for {days} days.",
        f"For {days} days {he} reads {pace} pages every day.",
    )
    ask = one_of(
        f"How many pages a day must {he} read to finish it in {later} more days?",
        f"The rest is read in {later} days. How many pages is that a day?",
    )
    steps = (
        Step(f"First {name} reads", f"{pace} * {days}", pace * days, "pages"),
        Step("Then there are still", f"{pages} - {pace * days}", later * rest, "pages"),
        Step("Every day that makes", f"{later * rest} / {later}", rest, "pages"),
    )
    return Story("reading", (pages, pace, days, later), f"{book} {first} {ask}", steps)


def comparison(rng: Random) -> Story:
    """Three people compared with each other and added up: x - or +, then +."""
    one_of = wordings(rng)
    (a, _, _), (b, _, _), (c, _, _) = rng.sample(PEOPLE, 3)
    thing = rng.choice(THINGS)
    start, times = rng.randint(4, 25), rng.randint(2, 5)
    second = start * times
    more = rng.random() < 0.5
    by = rng.randint(2, min(25, second - 1))
    third = second + by if more else second - by
    word, sign = ("more", "+") if more else ("fewer", "-")
    tell = one_of(
        f"{a} has {start} {thing}. {b} has {times} times as many as {a}. {c} has {by} {word} than {b}.",
        f"{a} collects {start} {thing}, and {b} collects {times} times as many. "
        f"{c} collects {by} {thing} {word} than {b}.",
    )
    steps = [
        Step(f"{b} has", f"{start} * {times}", second, thing),
        Step(f"{c} has", f"{second} {sign} {by}", third, thing),
    ]
    both = rng.choice((0, 1, 2))
    if both:
        steps.append(Step(f"{b} and {c} have", f"{second} + {third}", second + third, thing))
    if both == 2:
        steps.append(Step("Together they all have", f"{second + third} + {start}", second + third + start, thing))
    ask = (
        f"How many {thing} does {c} have?",
        f"How many {thing} do {b} and {c} have together?",
        f"How many {thing} do the three of them have together?",
    )[both]
    return Story("comparison", (start, times, by, int(more), both), f"{tell} {ask}", tuple(steps))

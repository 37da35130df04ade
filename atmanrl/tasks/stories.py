"""Stories for `WordProblems`: each function draws the numbers of one kind of story and tells it in English.

A story is told in sentences whose wording is drawn too; the numbers and the kind alone identify the problem, so
that two tellings of the same sum count as the same problem (see `Story.key`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

PEOPLE = (
    ("Anna", "she", "her"),
    ("Ben", "he", "his"),
    ("Clara", "she", "her"),
    ("David", "he", "his"),
    ("Emma", "she", "her"),
    ("Felix", "he", "his"),
    ("Grace", "she", "her"),
    ("Henry", "he", "his"),
    ("Iris", "she", "her"),
    ("Jack", "he", "his"),
    ("Kate", "she", "her"),
    ("Liam", "he", "his"),
    ("Maria", "she", "her"),
    ("Noah", "he", "his"),
    ("Olivia", "she", "her"),
    ("Peter", "he", "his"),
)
THINGS = ("apples", "stickers", "marbles", "cards", "shells", "stamps", "pencils", "beads", "buttons", "coins")
GOODS = ("pens", "books", "cakes", "toys", "plants", "lamps", "shirts", "cups", "games", "bags")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the working: `clause` leads to `expression` = `result` `unit` ("The boxes hold", "4 * 12", 48)."""

    clause: str
    expression: str
    result: int
    unit: str
    money: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """A problem with its working.

    Attributes:
        kind: which function told it.
        numbers: the numbers that were drawn, in a fixed order that does not depend on the order of the telling.
        text: the sentences and the question.
        steps: two to four steps; the last one's result is the answer.
    """

    kind: str
    numbers: tuple[int, ...]
    text: str
    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        """What makes it this problem and no other, whatever its wording: `boxes/4/12/6/3`."""
        return "/".join([self.kind, *map(str, self.numbers)])


def _steps(*steps: Step) -> tuple[Step, ...]:
    return steps


def collection(rng: Random) -> Story:
    """Someone gets some, gives some away and perhaps shares the rest: + - and sometimes exact division."""
    name, he, his = rng.choice(PEOPLE)
    thing = rng.choice(THINGS)
    friends = rng.choice((1, 1, 2, 3, 4, 5))
    left = friends * rng.randint(3, 15 if friends > 1 else 60)
    gets, gives = rng.randint(5, 60), rng.randint(4, 40)
    start = left + gives - gets
    if start < 3:
        start, left = start + 60, left + 60
    gained = rng.choice(
        (
            f"{name} buys {gets} more.",
            f"A friend gives {name} {gets} more {thing}.",
            f"Then {he} finds {gets} {thing} in a drawer.",
        )
    )
    lost = rng.choice(
        (
            f"Later {he} gives {gives} of them to {his} brother.",
            f"On the way home {he} loses {gives} of them.",
            f"The next day {he} sells {gives} {thing}.",
        )
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


def shopping(rng: Random) -> Story:
    """Two kinds of goods at a price each, the total, and perhaps the change: x + -, money."""
    name, he, _ = rng.choice(PEOPLE)
    first, second = rng.sample(GOODS, 2)
    n, p, m, q = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 9), rng.randint(2, 12)
    total = n * p + m * q
    paid = rng.choice((0, 0, total + rng.randint(1, 40)))
    buys = rng.choice(
        (
            f"{name} buys {n} {first} for ${p} each and {m} {second} for ${q} each.",
            f"In a shop, {first} cost ${p} each and {second} cost ${q} each. "
            f"{name} takes {n} {first} and {m} {second}.",
        )
    )
    steps = [
        Step(f"The {first} cost", f"{n} * {p}", n * p, "dollars", True),
        Step(f"The {second} cost", f"{m} * {q}", m * q, "dollars", True),
        Step(f"In all {name} has to pay", f"{n * p} + {m * q}", total, "dollars", True),
    ]
    if paid:
        buys += rng.choice((f" {name} pays with ${paid}.", f" {he.capitalize()} hands over ${paid}."))
        ask = rng.choice(("How much change is there?", f"How many dollars does {he} get back?"))
        steps.append(Step("The change is", f"{paid} - {total}", paid - total, "dollars", True))
    else:
        ask = rng.choice((f"How much does {name} pay?", "How many dollars is that in all?"))
    goods = sorted([(n, p), (m, q)])
    return Story("shopping", (*goods[0], *goods[1], paid), f"{buys} {ask}", tuple(steps))


def wages(rng: Random) -> Story:
    """Hourly pay over some days, and something spent: x x -, money."""
    name, he, _ = rng.choice(PEOPLE)
    rate, hours, days = rng.randint(5, 15), rng.randint(2, 8), rng.randint(2, 6)
    day = rate * hours
    spends = rng.randint(5, min(60, day * days - 1))
    works = rng.choice(
        (
            f"{name} earns ${rate} an hour and works {hours} hours a day.",
            f"{name} works {hours} hours every day for ${rate} an hour.",
        )
    )
    spent = rng.choice(
        (
            f"After {days} days {he} spends ${spends} on a present.",
            f"{he.capitalize()} works for {days} days and then pays a bill of ${spends}.",
        )
    )
    ask = rng.choice((f"How many dollars does {name} have left?", f"How much money is left for {name}?"))
    steps = _steps(
        Step(f"In one day {name} earns", f"{rate} * {hours}", day, "dollars", True),
        Step(f"In {days} days that makes", f"{day} * {days}", day * days, "dollars", True),
        Step(f"What {name} has left is", f"{day * days} - {spends}", day * days - spends, "dollars", True),
    )
    return Story("wages", (rate, hours, days, spends), f"{works} {spent} {ask}", steps)


def boxes(rng: Random) -> Story:
    """Boxes of things, some lost, the rest packed again: x - and exact division."""
    name, he, _ = rng.choice(PEOPLE)
    thing = rng.choice(THINGS)
    bags, each = rng.randint(2, 9), rng.randint(2, 12)
    n, k = rng.randint(3, 9), rng.randint(4, 12)
    while n * k <= bags * each:
        n, k = n + 1, k + 1
    lost = n * k - bags * each
    has = rng.choice(
        (
            f"{name} has {n} boxes with {k} {thing} in each.",
            f"There are {k} {thing} in a box, and {name} has {n} boxes.",
        )
    )
    gone = rng.choice(
        (f"{lost} {thing} are broken and thrown away.", f"{he.capitalize()} gives {lost} {thing} to a neighbor.")
    )
    ask = rng.choice(
        (
            f"The rest goes into bags of {each}. How many bags does {name} need?",
            f"{name} packs the rest in bags with {each} {thing} in each bag. How many bags are there?",
        )
    )
    steps = _steps(
        Step("The boxes hold", f"{n} * {k}", n * k, thing),
        Step("The rest is", f"{n * k} - {lost}", n * k - lost, thing),
        Step(f"So {name} needs", f"{n * k - lost} / {each}", bags, "bags"),
    )
    return Story("boxes", (n, k, lost, each), f"{has} {gone} {ask}", steps)


def reading(rng: Random) -> Story:
    """A book read in two paces: x - and exact division."""
    name, he, _ = rng.choice(PEOPLE)
    pace, days = rng.randint(5, 20), rng.randint(2, 6)
    later, rest = rng.randint(2, 8), rng.randint(4, 20)
    pages = pace * days + later * rest
    book = rng.choice(
        (f"{name} reads a book of {pages} pages.", f"A book has {pages} pages, and {name} wants to read all of it.")
    )
    first = rng.choice(
        (
            f"{he.capitalize()} reads {pace} pages a day for {days} days.",
            f"For {days} days {he} reads {pace} pages every day.",
        )
    )
    ask = rng.choice(
        (
            f"How many pages a day must {he} read to finish it in {later} more days?",
            f"The rest is read in {later} days. How many pages is that a day?",
        )
    )
    steps = _steps(
        Step(f"First {name} reads", f"{pace} * {days}", pace * days, "pages"),
        Step("Then there are still", f"{pages} - {pace * days}", later * rest, "pages"),
        Step("Every day that makes", f"{later * rest} / {later}", rest, "pages"),
    )
    return Story("reading", (pages, pace, days, later), f"{book} {first} {ask}", steps)


def comparison(rng: Random) -> Story:
    """Three people compared with each other and added up: x - or +, then +."""
    (a, _, _), (b, _, _), (c, _, _) = rng.sample(PEOPLE, 3)
    thing = rng.choice(THINGS)
    start, times = rng.randint(4, 25), rng.randint(2, 5)
    second = start * times
    more = rng.random() < 0.5
    by = rng.randint(2, min(25, second - 1))
    third = second + by if more else second - by
    word, sign = ("more", "+") if more else ("fewer", "-")
    tell = rng.choice(
        (
            f"{a} has {start} {thing}. {b} has {times} times as many as {a}. {c} has {by} {word} than {b}.",
            f"{a} collects {start} {thing}, and {b} collects {times} times as many. "
            f"{c} collects {by} {thing} {word} than {b}.",
        )
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


def garden(rng: Random) -> Story:
    """Rows of plants, some lost, the rest sold: x - x, money."""
    name, he, _ = rng.choice(PEOPLE)
    rows, each, price = rng.randint(2, 9), rng.randint(3, 12), rng.randint(2, 9)
    lost = rng.randint(1, rows * each - 2)
    crop = rng.choice(("tomatoes", "roses", "melons", "tulips"))
    grows = rng.choice(
        (
            f"{name} plants {rows} rows of {crop} with {each} in each row.",
            f"In the garden of {name} there are {rows} rows with {each} {crop} each.",
        )
    )
    gone = rng.choice((f"{lost} of them die in the winter.", f"A storm destroys {lost} of the {crop}."))
    ask = rng.choice(
        (
            f"{name} sells the others for ${price} each. How much money does {he} get?",
            f"All others are sold for ${price} each. How many dollars does {name} make?",
        )
    )
    left = rows * each - lost
    steps = _steps(
        Step(f"{name} plants", f"{rows} * {each}", rows * each, crop),
        Step("The number that is left is", f"{rows * each} - {lost}", left, crop),
        Step(f"For these {name} gets", f"{left} * {price}", left * price, "dollars", True),
    )
    return Story("garden", (rows, each, lost, price), f"{grows} {gone} {ask}", steps)


def saving(rng: Random) -> Story:
    """Saving for something: + - and exact division, money."""
    name, he, his = rng.choice(PEOPLE)
    weekly, weeks = rng.randint(3, 15), rng.randint(2, 12)
    has, gift = rng.randint(5, 50), rng.randint(5, 40)
    price = has + gift + weekly * weeks
    what = rng.choice(("a bike", "a guitar", "a camera", "a tent"))
    wants = rng.choice(
        (f"{name} wants to buy {what} for ${price}.", f"{name} is saving for {what} that costs ${price}.")
    )
    owns = rng.choice(
        (
            f"{he.capitalize()} has ${has} and gets ${gift} from {his} aunt.",
            f"There is ${has} in {his} jar, and {his} mother adds ${gift}.",
        )
    )
    ask = rng.choice(
        (
            f"How many weeks must {he} save if {he} saves ${weekly} a week?",
            f"{he.capitalize()} puts away ${weekly} every week. How many weeks does it take?",
        )
    )
    steps = _steps(
        Step(f"{name} already has", f"{has} + {gift}", has + gift, "dollars", True),
        Step(f"What {he} still needs is", f"{price} - {has + gift}", weekly * weeks, "dollars", True),
        Step("So it takes", f"{weekly * weeks} / {weekly}", weeks, "weeks"),
    )
    return Story("saving", (price, has, gift, weekly), f"{wants} {owns} {ask}", steps)


STORIES: tuple[Callable[[Random], Story], ...] = (
    collection,
    shopping,
    wages,
    boxes,
    reading,
    comparison,
    garden,
    saving,
)
"""Every kind of story, drawn with equal chance."""

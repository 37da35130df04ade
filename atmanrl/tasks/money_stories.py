"""Stories about money: each function draws the numbers of one kind and tells it in English."""

from __future__ import annotations

from random import Random

from atmanrl.tasks.stories import PEOPLE, Step, Story, wordings

GOODS = ("pens", "books", "cakes", "toys", "plants", "lamps", "shirts", "cups", "games", "bags")


def shopping(rng: Random) -> Story:
    """Two kinds of goods at a price each, the total, and perhaps the change: x + -, money."""
    one_of = wordings(rng)
    name, he, _ = rng.choice(PEOPLE)
    first, second = rng.sample(GOODS, 2)
    n, p, m, q = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 9), rng.randint(2, 12)
    total = n * p + m * q
    paid = rng.choice((0, 0, total + rng.randint(1, 40)))
    buys = one_of(
        f"{name} buys {n} {first} for ${p} each and {m} {second} for ${q} each.",
        f"In a shop, {first} cost ${p} each and {second} cost ${q} each. {name} takes {n} {first} and {m} {second}.",
    )
    steps = [
        Step(f"The {first} cost", f"{n} * {p}", n * p, "dollars", True),
        Step(f"The {second} cost", f"{m} * {q}", m * q, "dollars", True),
        Step(f"In all {name} has to pay", f"{n * p} + {m * q}", total, "dollars", True),
    ]
    if paid:
        buys += one_of(f" {name} pays with ${paid}.", f" {he.capitalize()} hands over ${paid}.")
        ask = one_of("How much change is there?", f"How many dollars does {he} get back?")
        steps.append(Step("The change is", f"{paid} - {total}", paid - total, "dollars", True))
    else:
        ask = one_of(f"How much does {name} pay?", "How many dollars is that in all?")
    goods = sorted([(n, p), (m, q)])
    return Story("shopping", (*goods[0], *goods[1], paid), f"{buys} {ask}", tuple(steps))


def wages(rng: Random) -> Story:
    """Hourly pay over some days, and something spent: x x -, money."""
    one_of = wordings(rng)
    name, he, _ = rng.choice(PEOPLE)
    rate, hours, days = rng.randint(5, 15), rng.randint(2, 8), rng.randint(2, 6)
    day = rate * hours
    spends = rng.randint(5, min(60, day * days - 1))
    works = one_of(
        f"{name} earns ${rate} an hour and works {hours} hours a day.",
        f"{name} works {hours} hours every day for ${rate} an hour.",
    )
    spent = one_of(
        f"After {days} days {he} spends ${spends} on a present.",
        f"{he.capitalize()} works for {days} days and then pays a bill of ${spends}.",
    )
    ask = one_of(f"How many dollars does {name} have left?", f"How much money is left for {name}?")
    steps = (
        Step(f"In one day {name} earns", f"{rate} * {hours}", day, "dollars", True),
        Step(f"In {days} days that makes", f"{day} * {days}", day * days, "dollars", True),
        Step(f"What {name} has left is", f"{day * days} - {spends}", day * days - spends, "dollars", True),
    )
    return Story("wages", (rate, hours, days, spends), f"{works} {spent} {ask}", steps)


def garden(rng: Random) -> Story:
    """Rows of plants, some lost, the rest sold: x - x, money."""
    one_of = wordings(rng)
    name, he, _ = rng.choice(PEOPLE)
    rows, each, price = rng.randint(2, 9), rng.randint(3, 12), rng.randint(2, 9)
    lost = rng.randint(1, rows * each - 2)
    crop = rng.choice(("tomatoes", "roses", "melons", "tulips"))
    grows = one_of(
        f"{name} plants {rows} rows of {crop} with {each} in each row.",
        f"In the garden of {name} there are {rows} rows with {each} {crop} each.",
    )
    gone = one_of(f"{lost} of them die in the winter.", f"A storm destroys {lost} of the {crop}.")
    ask = one_of(
        f"{name} sells the others for ${price} each. How much money does {he} get?",
        f"All others are sold for ${price} each. How many dollars does {name} make?",
    )
    left = rows * each - lost
    steps = (
        Step(f"{name} plants", f"{rows} * {each}", rows * each, crop),
        Step("The number that is left is", f"{rows * each} - {lost}", left, crop),
        Step(f"For these {name} gets", f"{left} * {price}", left * price, "dollars", True),
    )
    return Story("garden", (rows, each, lost, price), f"{grows} {gone} {ask}", steps)


def saving(rng: Random) -> Story:
    """Saving for something: + - and exact division, money."""
    one_of = wordings(rng)
    name, he, his = rng.choice(PEOPLE)
    weekly, weeks = rng.randint(3, 15), rng.randint(2, 12)
    has, gift = rng.randint(5, 50), rng.randint(5, 40)
    price = has + gift + weekly * weeks
    what = rng.choice(("a bike", "a guitar", "a camera", "a tent"))
    wants = one_of(f"{name} wants to buy {what} for ${price}.", f"{name} is saving for {what} that costs ${price}.")
    owns = one_of(
        f"{he.capitalize()} has ${has} and gets ${gift} from {his} aunt.",
        f"There is ${has} in {his} jar, and {his} mother adds ${gift}.",
    )
    ask = one_of(
        f"How many weeks must {he} save if {he} saves ${weekly} a week?",
        f"{he.capitalize()} puts away ${weekly} every week. How many weeks does it take?",
    )
    steps = (
        Step(f"{name} already has", f"{has} + {gift}", has + gift, "dollars", True),
        Step(f"What {he} still needs is", f"{price} - {has + gift}", weekly * weeks, "dollars", True),
        Step("So it takes", f"{weekly * weeks} / {weekly}", weeks, "weeks"),
    )
    return Story("saving", (price, has, gift, weekly), f"{wants} {owns} {ask}", steps)

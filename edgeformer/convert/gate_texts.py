"""Ordinary texts that a conversion is judged on where nobody gave any: orders, questions, opinions, news, small talk.

Written for this file. No classifier was trained on them, so their answers often lie near a boundary: a gate counts
those apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from edgeformer.data.pairs import spread

SENTENCES: tuple[str, ...] = (
    "please turn down the heating in the bedroom",
    "set an alarm for half past six tomorrow morning",
    "play something quiet from the nineties",
    "add two litres of milk to my shopping list",
    "how long does it take to drive to the airport right now",
    "transfer fifty pounds from savings to my current account",
    "what is my credit limit on the blue card",
    "my card was declined at the petrol station, why?",
    "I lost my wallet, freeze everything immediately",
    "book a table for four at an Italian place on Saturday",
    "how do you say good evening in Portuguese",
    "remind me to water the plants every Thursday",
    "will it rain in Bergen this afternoon",
    "convert 300 grams of flour to cups",
    "who wrote the book about the whale",
    "cancel my appointment with the dentist",
    "call my sister on her mobile",
    "where is the nearest pharmacy that is still open",
    "the parcel never arrived and nobody answers the phone",
    "I would like my money back for these headphones",
    "can I change the delivery address after ordering?",
    "your last update broke the search, it finds nothing now",
    "thanks, that solved it within a minute",
    "how do I reset my password without the old phone",
    "the app crashes whenever I open the camera",
    "is breakfast included in the price of the room",
    "we stayed three nights and slept badly on every one of them",
    "spotless room, friendly people, and a view over the harbour",
    "the soup was cold and the waiter did not care",
    "best dumplings in town, worth the queue",
    "a warm, funny and beautifully acted film",
    "two hours of my life that I will never get back",
    "not as bad as the critics say, but not good either",
    "the plot makes no sense, yet I could not stop watching",
    "an unforgettable performance in an otherwise dull play",
    "the sequel repeats every joke of the first one",
    "this album grows on you after the third listen",
    "the battery lasts two days, the screen is gorgeous",
    "cheap plastic, and it broke in the first week",
    "does exactly what it promises, nothing more",
    "I am so happy for you both, congratulations!",
    "I can't believe she is gone, it still hurts",
    "stop shouting at me, I did nothing wrong",
    "honestly I am a little scared of tomorrow's exam",
    "wow, I did not see that coming at all",
    "ugh, this smells disgusting",
    "the central bank left interest rates unchanged on Wednesday",
    "shares in the carmaker fell eight per cent after a recall",
    "the striker scored twice as the home side won 3-1",
    "rain stopped play shortly before tea on the second day",
    "voters will choose a new parliament in early spring",
    "the minister denied that the talks had failed",
    "firefighters saved all the animals from the burning barn",
    "scientists found water ice below the dunes of Mars",
    "a new telescope took the sharpest image of the galaxy so far",
    "the company plans to hire two hundred engineers in Cork",
    "the museum returned the bronze head to Nigeria",
    "temperatures in the valley reached a record 41 degrees",
    "photosynthesis turns carbon dioxide and water into sugar",
    "the mitochondrion is where a cell makes most of its energy",
    "a prime number has exactly two divisors",
    "the treaty of 1648 ended thirty years of war",
    "the kidney filters about 180 litres of blood a day",
    "take one tablet twice a day with plenty of water",
    "the patient reports headaches and a mild fever since Monday",
    "no fracture is visible on the X-ray of the left wrist",
    "the tenant shall pay the rent by the third day of each month",
    "either party may end this agreement with four weeks' notice",
    "the court dismissed the appeal with costs",
    "import the module and call the function with a list of paths",
    "TypeError: 'NoneType' object is not subscriptable, line 42",
    "the query joins three tables and takes eleven seconds",
    "git says that my branch has diverged from origin",
    "you have won a FREE cruise, click here to claim your prize!!!",
    "URGENT: your account will be closed unless you verify it today",
    "hi mum, my phone is broken, text me on this number",
    "lol ok see u at 8 then",
    "brb, the pizza guy is here",
    "anyone selling tickets for tonight? dm me",
    "good morning everyone, coffee first, questions later",
    "the meeting moved to room 4.12, please bring your laptops",
    "attached you will find the signed contract and the invoice",
    "could you send me the slides before noon?",
    "I will be out of office until the 14th of August",
    "what time does the last train to Leeds leave",
    "my flight was delayed by five hours and I missed the connection",
    "do I need a visa for a week in Japan",
    "recommend a hike of about ten kilometres near Innsbruck",
    "how many calories are in a banana",
    "what can I cook with leeks, potatoes and cream",
    "knead the dough for ten minutes and let it rise overnight",
    "why is the sky blue",
    "is it safe to mix these two medicines",
    "tell me a joke about penguins",
    "who are you and what can you do",
    "that is not what I asked for",
    "yes",
    "no, never mind",
    "12345",
    "Wie wird das Wetter morgen in München?",
    "¿Dónde puedo cambiar dinero cerca de la estación?",
    "je voudrais réserver une chambre pour deux personnes",
)
"""A hundred and two."""

PAIRS = 6
"""So many sentences come a second time with the next one as their pair."""
LONG_PER_BUCKET = 3
"""Texts of several sentences for each bucket: its own limits are judged, too."""
MOST_POSITIONS = 1 << 15
FEWEST = 48
"""Where the smallest bucket is so long that all sentences would take more positions, fewer are judged, of 512 tokens
64: each costs a second in the slowest engine."""


def gate_texts(lengths: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The sentences, some as pairs, and for each bucket texts of several that need it, in the form of vectors.

    Args:
        lengths: of the buckets, rising.
    """
    single = [{"text": text} for text in spread(SENTENCES, max(FEWEST, MOST_POSITIONS // lengths[0]))]
    pairs = [{"text": SENTENCES[2 * index], "pair": SENTENCES[2 * index + 1]} for index in range(PAIRS)]
    words = itertools.cycle(" ".join(SENTENCES).split())
    # A word is a token or a little more: see `samples.texts`.
    long = [
        {"text": " ".join(itertools.islice(words, max(1, length * part // 8)))}
        for length in lengths
        for part in (4, 5, 6)[:LONG_PER_BUCKET]
    ]
    return (*single, *pairs, *long)

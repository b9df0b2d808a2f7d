"""Printed words: capital letters of 3 x 5 pixels, set without smoothing, so that they can be read at 48 pixels."""

from __future__ import annotations

from PIL import Image

WIDTH, HEIGHT = 3, 5
INK = (16, 16, 16)
LETTERS = {  # rows from the top
    letter: rows.split()
    for letter, rows in {
        "a": ".#. #.# ### #.# #.#",
        "b": "##. #.# ##. #.# ##.",
        "c": ".## #.. #.. #.. .##",
        "d": "##. #.# #.# #.# ##.",
        "e": "### #.. ##. #.. ###",
        "f": "### #.. ##. #.. #..",
        "g": ".## #.. #.# #.# .##",
        "h": "#.# #.# ### #.# #.#",
        "i": "### .#. .#. .#. ###",
        "j": "..# ..# ..# #.# .#.",
        "k": "#.# #.# ##. #.# #.#",
        "l": "#.. #.. #.. #.. ###",
        "m": "#.# ### ### #.# #.#",
        "n": "#.# ### ### ### #.#",
        "o": "### #.# #.# #.# ###",
        "p": "### #.# ### #.. #..",
        "q": "### #.# #.# ### ..#",
        "r": "##. #.# ##. #.# #.#",
        "s": ".## #.. .#. ..# ##.",
        "t": "### .#. .#. .#. .#.",
        "u": "#.# #.# #.# #.# ###",
        "v": "#.# #.# #.# #.# .#.",
        "w": "#.# #.# ### ### #.#",
        "x": "#.# #.# .#. #.# #.#",
        "y": "#.# #.# .#. .#. .#.",
        "z": "### ..# .#. #.. ###",
    }.items()
}


def pixels(word: str) -> list[tuple[int, int]]:
    """(x, y) of the inked pixels from the word's upper left corner; a pixel lies between two letters."""
    return [
        (k * (WIDTH + 1) + x, y)
        for k, letter in enumerate(word)
        for y, row in enumerate(LETTERS[letter])
        for x, mark in enumerate(row)
        if mark == "#"
    ]


def width(word: str) -> int:
    return len(word) * (WIDTH + 1) - 1


def print_word(canvas: Image.Image, word: str, middle: float, bottom: int) -> None:
    """Sets the word with its middle at x = `middle`, its last row of pixels above y = `bottom`."""
    left = int(middle - width(word) / 2)
    for x, y in pixels(word):
        canvas.putpixel((left + x, bottom - HEIGHT + y), INK)

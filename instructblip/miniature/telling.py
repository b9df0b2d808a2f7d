"""The scenes in words: what a language model is told of a picture when it does not see it.

One line a picture or clip, in reading order, of what the picture shows and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from instructblip.miniature.albums import ALBUMS, Picture
from instructblip.miniature.clips import Clip
from instructblip.miniature.drawing import Background
from instructblip.miniature.memes import Meme
from instructblip.miniature.scenes import Object
from instructblip.miniature.snapshots import HOPELESS, visible
from instructblip.miniature.world import World
from instructblip.miniature.writers.choices import ICONQA_ROLES, hateful_memes, iconqa
from instructblip.miniature.writers.videos import MSRVTT_FOLDERS, ROLES, Film, ivqa, msrvtt, msvd

UNASKED = ("web", "web_llava")
BLURRED, EMPTY = "all blurred.", "nothing."
STRIPES_SEEN = "stripes."


class Told(NamedTuple):
    """Which picture or clip, by the identity that a `MediaRef` has, and what it shows."""

    pool: str
    key: str
    text: str


def told(world: World) -> Iterator[Told]:
    """Every picture and clip of the world that something is asked of; web pictures have captions alone."""
    for name, album in ALBUMS.items():
        for picture in () if name in UNASKED else world.pictures(name):
            yield Told(album.pool, _key(album.pool, picture), tell_picture(picture))
    for split in ICONQA_ROLES:
        for problem in iconqa(world, split):
            yield Told("iconqa", problem.pid, tell(problem.scenes[0].objects))
    for memes in hateful_memes(world).values():
        for named in memes:
            yield Told("hateful_memes", f"{named.id:05d}", tell_meme(named.meme))
    yield from _films(world)


def _films(world: World) -> Iterator[Told]:
    first = 0
    for split in ROLES:
        yield from _clips("msvd", msvd(world, split))
        yield from _clips("ivqa", ivqa(world, split))
    for split in MSRVTT_FOLDERS:
        films = msrvtt(world, split, first)
        yield from _clips("msrvtt", films)
        first += len(films)


def _clips(pool: str, films: Iterable[Film]) -> Iterator[Told]:
    for film in films:
        yield Told(pool, film.name, tell_clip(film.clip))


def _key(pool: str, picture: Picture) -> str:
    return str(picture.id) if pool in ("coco", "visdial2018") else picture.key


def tell_picture(picture: Picture) -> str:
    """A crop shows no object where the scene has it, so its places are not told."""
    look = picture.look
    seen = visible(picture.scene, look)
    if look.blur >= HOPELESS:
        return BLURRED
    text = tell(seen, placed=look.crop is None)
    return f"{text} {STRIPES_SEEN}" if look.background is Background.striped else text


def tell_clip(clip: Clip) -> str:
    """Where all things are at first and at the end; what moved is for the reader to find."""
    after = clip.after if clip.mover else clip.before
    return f"first {tell(clip.before.objects)} last {tell(after.objects)}"


def tell_meme(meme: Meme) -> str:
    return f"{tell(meme.scene.objects)} {tell_word(meme)}"


def tell_word(meme: Meme) -> str:
    return f"the word {meme.word}."


def tell(objects: Iterable[Object], placed: bool = True) -> str:
    """`large red circle top left, small blue square center says fox.`"""
    ordered = sorted(objects, key=lambda item: item.cell)
    return f"{', '.join(_object(item, placed) for item in ordered)}." if ordered else EMPTY


def _object(item: Object, placed: bool) -> str:
    place = f" {item.place}" if placed else ""
    return f"{item.size} {item.name}{place}{f' says {item.word}' if item.word else ''}"

"""Views and what can truly be said of them: whole views, and crops around one object, each with its texts.

Shape suffixes: N images, V views, H, W pixels, S the edge of an image.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from r1pipe.datasets.sample import Sample
from r1pipe.scenes.scene import NO_INSTANCE, Scene, SceneObject
from r1pipe.views.views import Views

MIN_SHARE = 0.01
"""Share of a view's pixels from which on an object counts as shown."""

MARGIN = 1.25
"""A crop's edge over the object's larger extent: some of the surroundings belong to a caption."""

CROPS_PER_SCENE = 12

SHORT_WORDS = 4
"""An answer of so many words counts as short."""

_NOT_ADJECTIVES = frozenset(
    ["a", "an", "the", "this", "that", "these", "those", "is", "are", "was", "there", "it", "its"]
    + ["and", "of", "in", "on", "with", "to", "by"]
)

Captions = Mapping[tuple[str, int], Sequence[str]]


class Shown(NamedTuple):
    """One image with every text that is true of it."""

    image: NDArray[np.uint8]
    """`(S, S, 3)`."""

    texts: tuple[str, ...]
    """Captions, phrases ("red chair"), labels and attributes, sorted."""

    phrase: str
    """What names a crop's object; empty for a whole view."""

    label: str
    """The class of a crop's object; empty for a whole view."""

    @property
    def attribute(self) -> str:
        """What the phrase says of a crop's object beside its class: "red"; empty where it says no more."""
        return self.phrase.removesuffix(self.label).strip()


class Mixture:
    """Draws images with replacement, a given share of them whole views, the others crops."""

    def __init__(self, images: Sequence[Shown], view_share: float) -> None:
        described = [image for image in images if image.texts]
        crops = [image for image in described if image.label]
        views = [image for image in described if not image.label]
        self.crops, self.views = crops or views, views or crops
        self.view_share = view_share

    def draw(self, count: int, rng: np.random.Generator) -> list[Shown]:
        """A batch."""
        pools = [self.views if whole else self.crops for whole in rng.random(count) < self.view_share]
        return [pool[rng.integers(len(pool))] for pool in pools]


def accuracy(found: Sequence[str], wanted: Sequence[str]) -> tuple[float, float]:
    """The share of names that were found right, and that of the commonest name: what a constant answer gets."""
    _, counts = np.unique(wanted, return_counts=True)
    return float((np.asarray(found) == np.asarray(wanted)).mean()), float(counts.max() / counts.sum())


def captions(samples: Iterable[Sample]) -> Captions:
    """The captions of each object, `(scene id, object id)`, from the samples of task captioning."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for sample in samples:
        if sample.task == "captioning" and len(sample.object_ids) == 1:
            found[sample.scene_id, sample.object_ids[0]].extend(sample.answers)
    return found


def phrase(caption: str, label: str) -> str:
    """The label with up to two adjectives before it in the caption; the label alone where it does not occur.

    >>> phrase("this is a brown wooden chair . it stands by the table .", "chair")
    'brown wooden chair'
    """
    words = re.findall(r"[a-z0-9'-]+", caption.lower())
    name = label.lower().split()
    for start in range(len(words) - len(name) + 1):
        if words[start : start + len(name)] == name:
            before: list[str] = []
            for word in reversed(words[max(0, start - 2) : start]):
                if word in _NOT_ADJECTIVES:
                    break
                before.insert(0, word)
            return " ".join(before + name)
    return " ".join(name)


def shown(scene: Scene, views: Views, said: Captions, seed: int) -> list[Shown]:
    """The whole views of a scene, then up to `CROPS_PER_SCENE` crops, drawn from a generator of seed and scene id."""
    objects = {o.id: o for o in scene.objects}
    instance_VHW = np.where(views.index >= 0, scene.instance[views.index], NO_INSTANCE)
    visible = [_visible(instance_HW, objects) for instance_HW in instance_VHW]
    names = {number: _Names.of(o, said.get((scene.id, number), ())) for number, o in objects.items()}
    images = [_whole(rgb, [names[o] for o in seen]) for rgb, seen in zip(views.rgb, visible, strict=True)]
    places = [(v, o) for v, seen in enumerate(visible) for o in seen]
    # Walls and floors fill most views and say least; what people caption is cropped, if they captioned anything.
    places = [(v, o) for v, o in places if names[o].captions] or places
    rng = np.random.default_rng([seed, *scene.id.encode()])
    chosen = sorted(rng.permutation(len(places))[:CROPS_PER_SCENE].tolist())
    crops = (places[i] for i in chosen)
    return images + [_crop(views.rgb[v], instance_VHW[v] == o, names[o]) for v, o in crops]


def short_texts(samples: Iterable[Sample], images: Iterable[Shown]) -> list[str]:
    """The distinct short answers of the samples, with the short texts of the images, sorted."""
    answers = (answer for sample in samples for answer in sample.answers)
    texts = (text for image in images for text in image.texts)
    return sorted({text for source in (answers, texts) for text in source if 0 < len(text.split()) <= SHORT_WORDS})


class _Names(NamedTuple):
    label: str
    phrase: str
    captions: tuple[str, ...]

    @classmethod
    def of(cls, o: SceneObject, said: Sequence[str]) -> "_Names":
        label = o.label.lower()
        return cls(label, phrase(said[0], label) if said else label, tuple(said))

    def texts(self) -> Iterator[str]:
        yield self.label
        yield self.phrase
        yield from self.phrase.removesuffix(self.label).split()


def _visible(instance_HW: NDArray[np.int32], objects: Mapping[int, SceneObject]) -> list[int]:
    """The objects with enough pixels, by id."""
    numbers, counts = np.unique(instance_HW, return_counts=True)
    enough = numbers[counts >= MIN_SHARE * instance_HW.size].tolist()
    return [number for number in enough if number in objects]


def _whole(rgb_HW3: NDArray[np.uint8], names: Sequence[_Names]) -> Shown:
    return Shown(_square(rgb_HW3), tuple(sorted({text for n in names for text in n.texts()})), "", "")


def _crop(rgb_HW3: NDArray[np.uint8], mask_HW: NDArray[np.bool_], names: _Names) -> Shown:
    rows, columns = np.nonzero(mask_HW)
    height, width = mask_HW.shape
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    edge = int(np.clip(round(MARGIN * extent), 8, min(height, width)))
    top = int(np.clip((rows.min() + rows.max() + 1 - edge) // 2, 0, height - edge))
    left = int(np.clip((columns.min() + columns.max() + 1 - edge) // 2, 0, width - edge))
    window = rgb_HW3[top : top + edge, left : left + edge]
    texts = tuple(sorted({*names.texts(), *names.captions}))
    return Shown(_square(window, min(height, width)), texts, names.phrase, names.label)


def _square(rgb_HW3: NDArray[np.uint8], edge: int | None = None) -> NDArray[np.uint8]:
    """The image at `edge` pixels (its shorter side) either way."""
    edge = edge or min(rgb_HW3.shape[:2])
    if rgb_HW3.shape[:2] == (edge, edge):
        return rgb_HW3
    return np.asarray(Image.fromarray(rgb_HW3).resize((edge, edge), Image.Resampling.BICUBIC))

"""Everything that labelling needs, opened and closed together: slides, candidates, cache, answers, data set."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import PatchDataset
from wsiseg.datasets.patch import group_of
from wsiseg.errors import OptionError
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.journals import all_answers, journal_path
from wsiseg.labelling.labelling import Labelling
from wsiseg.labelling.patch_cache import Cut, Cutter, PatchCache, SlideCuts
from wsiseg.labelling.places import Candidate, LabelSlide, candidates_of, in_turn, share_of
from wsiseg.labelling.probe import Embeddings, Prober
from wsiseg.labelling.review import Review, Sort, review_of
from wsiseg.labelling.session import Session, Terms
from wsiseg.labelling.table import write_data_set
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.system.addresses import last_part
from wsiseg.system.files import refuse_address
from wsiseg.system.locks import locked

MOST_CANDIDATES = 5000
PAGE = 24
"""Patches shown at once."""

FOLDS = 5
"""Labels that are looked at again with an encoder alone are judged by fits to the other four fifths."""

FIRST_PAGE_S = 60.0
"""How long the first page may wait for its slides."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person asks for.

    Attributes:
        root: the data set's folder.
        slides: paths and addresses; none for a review.
        classes: of a new folder, and to add to one that was begun; None for those it has.
        mpp: microns per pixel of the patches.
        patch_px: side of a patch in pixels.
        labeller: who labels.
        most: candidates in all.
        seed: of their order.
        regions: a GeoJSON for all slides (of one slide, then), or a folder with one of each slide's name; None takes
            the tissue.
        patients: slide's name -> patient, for those that are known.
        classwise: see `Labelling`.
        review: a data set whose labels are looked at again, in place of slides.
        sort: in which order; see `wsiseg.labelling.review.SORTS`.
        slide_mpp: microns per level-0 pixel, where slides do not record it.
        reader: as of `wsiseg.slides.open_slide`.
    """

    root: Path
    slides: Sequence[str]
    classes: ClassTable | None
    mpp: float
    patch_px: int
    labeller: str = "me"
    most: int = MOST_CANDIDATES
    seed: int = 0
    regions: Path | None = None
    patients: Mapping[str, str] | None = None
    classwise: bool | None = None
    review: PatchDataset | None = None
    sort: Sort = "file"
    slide_mpp: float | None = None
    reader: str | None = None


class Workplace:
    """One person's labelling, with pixels to show and a data set to write.

    Attributes:
        labelling: rounds and answers.
        cache: pixels.
        cutter: cuts what is not there yet.
        review: the labels that are looked at again, where they are.
        saved: patches with an answer in the data set, as it was last written.
    """

    def __init__(
        self, session: Session, labelling: Labelling, cache: PatchCache, cutter: Cutter, review: Review | None = None
    ) -> None:
        self.session = session
        self.labelling = labelling
        self.cache = cache
        self.cutter = cutter
        self.review = review
        self.saved = 0
        self._writing = threading.Lock()

    def save(self) -> int:
        """Bring `labels.csv` up to date; how many patches have an answer.

        Waits for patches that have an answer and whose pixels are not cut: the cache may have been removed.
        """
        with self._writing:
            self.labelling.refresh()
            answers = all_answers(self.session)
            known, candidates = self.cache.known(), self.labelling.candidates
            answered = {patch for one in answers for patch in one.all()} & candidates.keys()
            missing = [candidates[patch] for patch in (answered | self._reviewed()) - known]
            self.cutter.add(missing, first=True)
            self.cutter.wait([candidate.id for candidate in missing])
            self.saved = write_data_set(self.session, answers, self.labelling.candidates, self.cache, self.review)
            return self.saved

    def _reviewed(self) -> set[str]:
        """All patches of a review: those without an answer are written as well."""
        return set() if self.review is None else set(self.review.rows)


@contextmanager
def workplace(
    wishes: Wishes,
    advise: Callable[[PatchCache, Sequence[Candidate]], Advice | Embeddings] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Iterator[Workplace]:
    """Open slides, find candidates and begin to cut them; at the end the data set is written and all is closed.

    Args:
        wishes: what to label, and how.
        advise: asks a model, or an encoder, about the candidates, once they are all cut.
        told: called with what is being done.

    Raises:
        OutputError: the same person labels in this folder already, or it cannot be written.
        DatasetError: the folder was begun otherwise.
        SlideError: a slide cannot be read, or its mpp is unknown.
        OptionError: a wish that cannot be.
    """
    refuse_address(wishes.root)
    if bool(wishes.slides) == (wishes.review is not None):
        raise OptionError("expected slides to label, or a data set to review")
    with ExitStack() as stack:
        session = Session(wishes.root, Terms(wishes.mpp, wishes.patch_px, wishes.seed), wishes.classes)
        stack.callback(session.close)
        stack.enter_context(locked(journal_path(session.folder, wishes.labeller)))  # one process a person
        review = None if wishes.review is None else review_of(wishes.review)
        candidates: Sequence[Candidate]
        cut: Cut
        if review is not None:
            candidates, cut = review.candidates, review.cut
        else:
            candidates, cut = _of_slides(stack, session, wishes, told)
        cache = PatchCache(session.folder / "patches.sqlite")
        stack.callback(cache.close)
        cutter = Cutter(cache, cut)
        stack.callback(cutter.close)
        cutter.add(candidates)
        advice, prober = None, None
        if advise is not None:
            told(f"cutting {len(candidates)} patches")
            cutter.wait([candidate.id for candidate in candidates])
            found = advise(cache, candidates)
            advice = found if isinstance(found, Advice) else None
            prober = Prober(found) if isinstance(found, Embeddings) else None
        if review is not None and prober is not None:  # each label is judged by the others
            labels = {patch: row.labels for patch, row in review.rows.items()}
            advice, prober = prober.advice_apart(labels, session.classes.names, FOLDS), None
        labelling = Labelling(
            session,
            wishes.labeller,
            candidates,
            lambda patch: _readable(cache, patch),
            advice,
            wishes.classwise,
            None if review is None else review.order(wishes.sort, advice),
            prober=prober,
        )
        stack.callback(labelling.close)
        _cut_first_page(labelling, cutter)
        place = Workplace(session, labelling, cache, cutter, review)
        place.save()  # what a kill kept from the table
        try:
            yield place
        finally:
            place.save()


def _of_slides(
    stack: ExitStack, session: Session, wishes: Wishes, told: Callable[[str], None]
) -> tuple[Sequence[Candidate], Cut]:
    """The candidates of slides, and what cuts them."""
    told("opening slides")
    readers, slides = _open(stack, wishes)
    session.add_slides(slides)
    return _candidates(readers, slides, wishes, told), SlideCuts(readers, wishes.mpp)


def _open(stack: ExitStack, wishes: Wishes) -> tuple[dict[str, SlideReader], list[LabelSlide]]:
    readers: dict[str, SlideReader] = {}
    slides = []
    for path in wishes.slides:
        name = last_part(str(path))
        if name in readers:
            raise OptionError(f"two slides are called {name}; rename one, since rows know a slide by its name")
        reader = stack.enter_context(open_slide(path, mpp=wishes.slide_mpp, reader=wishes.reader))
        readers[name] = reader
        slides.append(LabelSlide(name, str(path), reader.quick_hash(), patient_of(name, wishes.patients or {})))
    return readers, slides


def patient_of(name: str, patients: Mapping[str, str]) -> str:
    """The patient of a slide: as a table says, by name with or without ending; of TCGA's names; else the slide."""
    stem = re.sub(r"(\.ome)?\.[A-Za-z0-9]{2,5}$", "", name)
    for key in (name, stem):
        if key in patients:
            return patients[key]
    return group_of(stem) if stem.upper().startswith("TCGA-") else stem


def _candidates(
    readers: Mapping[str, SlideReader], slides: Sequence[LabelSlide], wishes: Wishes, told: Callable[[str], None]
) -> list[Candidate]:
    if wishes.regions is not None and len(slides) > 1 and not wishes.regions.is_dir():
        raise OptionError("--regions of several slides is a folder with NAME.geojson for each slide NAME")
    share = share_of(wishes.most, len(slides))
    found = []
    for number, slide in enumerate(slides, start=1):
        told(f"finding tissue, slide {number} of {len(slides)}")
        tissue = regions_of(wishes.regions, slide.name)
        found.append(
            candidates_of(
                readers[slide.name], slide, wishes.mpp, wishes.patch_px, share, tissue=tissue, seed=wishes.seed
            )
        )
    candidates = in_turn(found)
    if not candidates:
        raise OptionError("there is no patch with tissue to label; are the slides and regions the right ones?")
    return candidates


def regions_of(regions: Path | None, slide: str) -> str | Path:
    """The regions of a slide, "otsu" where none are given.

    Raises:
        OptionError: the folder has none for it.
    """
    if regions is None:
        return "otsu"
    if not regions.is_dir():
        return regions
    for stem in (slide, PurePath(slide).stem):
        for ending in (".geojson", ".geojson.gz", ".json", ".png"):
            if (regions / f"{stem}{ending}").is_file():
                return regions / f"{stem}{ending}"
    raise OptionError(f"{regions} has no regions for {slide}; add {PurePath(slide).stem}.geojson")


def _readable(cache: PatchCache, patch: str) -> bool:
    """Not known to be unreadable; those that were not cut yet are taken to be readable."""
    return not cache.has(patch) or cache.png(patch) is not None


def _cut_first_page(labelling: Labelling, cutter: Cutter) -> None:
    of = labelling.round()
    open_places = labelling.open_items(of)[:PAGE]
    patches = [of.items[place].patch for place in open_places]
    cutter.add([labelling.candidates[p] for p in patches if p in labelling.candidates], first=True)
    cutter.wait(patches, FIRST_PAGE_S)

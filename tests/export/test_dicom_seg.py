"""DICOM segmentations of maps, read back by highdicom."""

from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.helpers.dicom_files import Kind, write_slide
from wsiseg.errors import OptionError
from wsiseg.export.dicom_seg import export_dicom_seg
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

hd = pytest.importorskip("highdicom")


@pytest.fixture(scope="module")
def slide_and_map(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A DICOM slide of a piece of CMU-1-Small-Region, and its map by the shipped model."""
    import wsiseg
    from wsiseg.prediction.run import PredictOptions

    folder = tmp_path_factory.mktemp("seg")
    with openslide.OpenSlide(sample_data / "CMU-1-Small-Region.svs") as slide:
        tissue = np.asarray(slide.read_region((300, 300), 0, (700, 600)))[..., :3].copy()
    write_slide(folder / "slide", tissue, Kind())
    wsiseg.predict(folder / "slide", folder / "map.zarr", options=PredictOptions(overlap=0.0))
    return folder / "slide", folder / "map.zarr"


def test_a_segmentation_reads_back_equal(slide_and_map: tuple[Path, Path], tmp_path: Path) -> None:
    slide_path, map_path = slide_and_map
    tissue_map = open_map(map_path)
    with open_slide(slide_path) as slide:
        found = export_dicom_seg(tissue_map, tmp_path, slide, mpp=1.0)
        again = export_dicom_seg(tissue_map, tmp_path / "again.dcm", slide, mpp=1.0)
        reference = slide.base
    assert found.path == tmp_path / "map-seg.dcm"
    assert found.level == 1
    read = hd.seg.segread(found.path)
    assert read.SOPInstanceUID == hd.seg.segread(again.path).SOPInstanceUID
    classes = tissue_map.class_map(1).compute()
    assert set(np.unique(classes)) > {0}
    values = np.squeeze(read.get_total_pixel_matrix(combine_segments=True, relabel=False))
    assert np.array_equal(values, np.where(classes == 255, 0, classes))
    labels = {item.SegmentNumber: item.SegmentLabel for item in read.SegmentSequence}
    assert [labels[index] for index in (1, 2, 3)] == list(tissue_map.classes.names)
    assert read.FrameOfReferenceUID == reference.key.frame_of_reference
    referenced = read.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert referenced.ReferencedSOPInstanceUID == reference.key.sop_uid
    spacing = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(value) * 1000 for value in spacing] == pytest.approx(list(tissue_map.scale_um(1)))
    algorithm = read.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence[0]
    assert tissue_map.metadata["model"]["hash"] in str(algorithm.AlgorithmParameters)


def test_only_the_slide_itself_is_referred_to(
    slide_and_map: tuple[Path, Path], tmp_path: Path, sample_data: Path
) -> None:
    tissue_map = open_map(slide_and_map[1])
    with (
        open_slide(sample_data / "CMU-1-Small-Region.svs") as other,
        pytest.raises(OptionError, match="is not a DICOM slide"),
    ):
        export_dicom_seg(tissue_map, tmp_path / "a.dcm", other)
    write_slide(tmp_path / "other", np.full((600, 700, 3), 200, np.uint8), Kind(series="1.2.3"))
    with open_slide(tmp_path / "other") as other, pytest.raises(OptionError, match="was made from"):
        export_dicom_seg(tissue_map, tmp_path / "a.dcm", other)
    assert not (tmp_path / "a.dcm").exists()

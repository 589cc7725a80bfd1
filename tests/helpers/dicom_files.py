"""DICOM slides made from pixels: every layout, codec and fault that the reader is tried on."""

import io
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import UID, generate_uid

from wsiseg.geometry import ceil_div

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
RAW, JPEG, J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.1", *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 90, 91))
JPEGLS, RLE, DEFLATED = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"
HTJ2K = "1.2.840.10008.1.2.4.201"


@dataclass(frozen=True)
class Kind:
    """How instances are written.

    Attributes:
        syntax: transfer syntax.
        photometric: as it is stated, and as samples are stored.
        tile: side of a frame.
        sparse: whether frames state their places; then `left_out` cells have none.
        offsets: "basic", "extended", or "none".
        fragments: of each frame.
        parts: instances a concatenation of the level is cut into.
        padded: whether the level's size is stated in whole tiles.
        series: UIDs of study, series and frame of reference.
        changes: elements that are set at the end; None takes one out.
    """

    syntax: str = JPEG
    photometric: str = "YBR_FULL_422"
    tile: int = 256
    sparse: bool = False
    left_out: frozenset[tuple[int, int]] = frozenset()
    offsets: str = "basic"
    fragments: int = 1
    parts: int = 1
    padded: bool = False
    stored: str = ""
    mct: bool = True
    series: str = "1.2.826.0.1.3680043.8.498.77"
    container: str = "S-1"
    changes: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> "Kind":
        return replace(self, **changes)


def to_ybr(rgb: np.ndarray) -> np.ndarray:
    """Full-range BT.601, as DICOM's YBR_FULL."""
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    ybr = np.stack([y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128], axis=-1)
    return np.rint(ybr).clip(0, 255).astype(np.uint8)


def encode(rgb: np.ndarray, kind: Kind) -> bytes:
    """The bytes of one frame."""
    stored = kind.stored or kind.photometric
    if kind.syntax == JPEG:
        if stored == "RGB":
            return imagecodecs.jpeg8_encode(rgb, level=90, colorspace="RGB", outcolorspace="RGB")
        data = imagecodecs.jpeg8_encode(rgb, level=90, colorspace="RGB", outcolorspace="YCBCR", subsampling="422")
        return without_app(data)
    samples = to_ybr(rgb) if stored.startswith("YBR_FULL") else rgb
    if kind.syntax in (J2K, J2K_LOSSLESS, HTJ2K):
        lossless = kind.syntax != J2K
        return imagecodecs.jpeg2k_encode(
            samples, level=None if lossless else 60, codecformat="j2k", reversible=lossless, mct=kind.mct
        )
    if kind.syntax == JPEGLS:
        return imagecodecs.jpegls_encode(samples)
    if kind.syntax == RLE:
        from pydicom.pixels.encoders import RLELosslessEncoder

        return RLELosslessEncoder.encode(
            samples, rows=rgb.shape[0], columns=rgb.shape[1], samples_per_pixel=3, bits_allocated=8, bits_stored=8,
            pixel_representation=0, photometric_interpretation="RGB", number_of_frames=1, planar_configuration=0,
            encoding_plugin="pydicom",
        )  # fmt: skip
    return np.ascontiguousarray(samples).tobytes()


def without_app(data: bytes) -> bytes:
    """A JPEG without the markers that state its colours, as scanners write it."""
    out, place = bytearray(data[:2]), 2
    while data[place + 1] != 0xDA:
        length = struct.unpack_from(">H", data, place + 2)[0]
        if data[place + 1] not in (0xE0, 0xEE):
            out += data[place : place + 2 + length]
        place += 2 + length
    return bytes(out + data[place:])


def decoded(rgb: np.ndarray, kind: Kind) -> np.ndarray:
    """What a frame looks like when its bytes are decoded by an independent way."""
    from PIL import Image

    if kind.syntax == JPEG and (kind.stored or kind.photometric) != "RGB":
        return np.asarray(Image.open(io.BytesIO(encode(rgb, kind))).convert("RGB"))
    if kind.syntax == J2K:
        return np.asarray(Image.open(io.BytesIO(encode(rgb, kind))).convert("RGB"))
    return rgb


def base(kind: Kind, flavor: tuple[str, ...], number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = WSI
    meta.TransferSyntaxUID = UID(kind.syntax)
    meta.MediaStorageSOPInstanceUID = UID(f"{kind.series}.9.{number}")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = WSI, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(f"{kind.series}.1"), UID(f"{kind.series}.2")
    ds.FrameOfReferenceUID = UID(f"{kind.series}.3")
    ds.PatientID, ds.PatientName, ds.Modality, ds.Manufacturer = "P", "P^P", "SM", "wsiseg tests"
    ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "", "20200101", "000000", ""
    ds.PatientBirthDate, ds.PatientSex, ds.ReferringPhysicianName = "", "", ""
    ds.ContentDate, ds.ContentTime, ds.AcquisitionDateTime = "20200101", "000000", "20200101000000"
    ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = "none", "1", "1"
    ds.PositionReferenceIndicator, ds.VolumetricProperties = "SLIDE_CORNER", "VOLUME"
    ds.SeriesNumber, ds.InstanceNumber, ds.ImageType = 1, number, list(flavor)
    ds.ContainerIdentifier, ds.BurnedInAnnotation = kind.container, "NO"
    ds.IssuerOfTheContainerIdentifierSequence, ds.AcquisitionContextSequence = [], []
    ds.ContainerTypeCodeSequence = [code("433466003", "SCT", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "1", UID(f"{kind.series}.4")
    specimen.IssuerOfTheSpecimenIdentifierSequence, specimen.SpecimenPreparationSequence = [], []
    ds.SpecimenDescriptionSequence = [specimen]
    ds.FocusMethod, ds.ExtendedDepthOfField, ds.SpecimenLabelInImage = "AUTO", "NO", "NO"
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    ds.TotalPixelMatrixOriginSequence = [origin]
    path = Dataset()
    path.OpticalPathIdentifier, path.ObjectiveLensPower = "1", 20
    path.IlluminationTypeCodeSequence = [code("111744", "DCM", "Brightfield illumination")]
    path.IlluminationColorCodeSequence = [code("414298005", "SCT", "Full Spectrum")]
    ds.OpticalPathSequence, ds.NumberOfOpticalPaths, ds.TotalPixelMatrixFocalPlanes = [path], 1, 1
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, kind.photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "01" if kind.syntax in (JPEG, J2K) else "00"
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def write_level(
    folder: Path,
    rgb: np.ndarray,
    mpp: float | None = 0.5,
    kind: Kind = Kind(),
    *,
    number: int = 1,
    flavor: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
    suffix: str = ".dcm",
) -> list[Path]:
    """The instance, or instances, of one image, (height, width, 3) uint8; names are of the number."""
    height, width = rgb.shape[:2]
    tile = (min(kind.tile, 2**15), min(kind.tile, 2**15))
    if "VOLUME" not in flavor:
        tile = (height, width)
    rows, columns = ceil_div(height, tile[0]), ceil_div(width, tile[1])
    canvas = np.full((rows * tile[0], columns * tile[1], 3), 255, np.uint8)
    canvas[:height, :width] = rgb
    cells = [(x, y) for y in range(rows) for x in range(columns) if (x, y) not in kind.left_out]
    frames = [encode(canvas[y * tile[0] : (y + 1) * tile[0], x * tile[1] : (x + 1) * tile[1]], kind) for x, y in cells]
    written = []
    parts = min(kind.parts, len(frames))
    per_part = ceil_div(len(frames), parts)
    for part in range(parts):
        ds = base(kind, flavor, number if parts == 1 else 100 * number + part)
        ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = width, height
        if kind.padded:
            ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = canvas.shape[1], canvas.shape[0]
        ds.Rows, ds.Columns = tile
        span = slice(part * per_part, (part + 1) * per_part)
        _places(ds, cells[span], tile, mpp, kind, flavor)
        if mpp is not None:
            ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
            ds.ImagedVolumeDepth = 0.001
        if parts > 1:
            ds.ConcatenationUID, ds.InConcatenationNumber = UID(f"{kind.series}.8.{number}"), part + 1
            ds.InConcatenationTotalNumber, ds.ConcatenationFrameOffsetNumber = parts, part * per_part
            ds.SOPInstanceUIDOfConcatenationSource = UID(f"{kind.series}.8.{number}.1")
        ds.NumberOfFrames = len(frames[span])
        _pixels(ds, frames[span], kind)
        for name, value in kind.changes.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        path = folder / f"{number}{'' if parts == 1 else f'-{part}'}{suffix}"
        ds.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def _places(ds: Dataset, cells: list, tile: tuple[int, int], mpp: float | None, kind: Kind, flavor: tuple) -> None:
    shared = Dataset()
    measures = Dataset()
    if mpp is not None:
        measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared.PixelMeasuresSequence = [measures]
    frame_type = Dataset()
    frame_type.FrameType = list(flavor)
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    shared.OpticalPathIdentificationSequence = [optical]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.DimensionOrganizationType = "TILED_SPARSE" if kind.sparse else "TILED_FULL"
    organization = Dataset()
    organization.DimensionOrganizationUID = UID(f"{kind.series}.5")
    ds.DimensionOrganizationSequence = [organization]
    if not kind.sparse:
        return
    groups = []
    for x, y in cells:
        place, group = Dataset(), Dataset()
        place.ColumnPositionInTotalImagePixelMatrix = x * tile[1] + 1
        place.RowPositionInTotalImagePixelMatrix = y * tile[0] + 1
        place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
        place.ZOffsetInSlideCoordinateSystem = 0
        group.PlanePositionSlideSequence = [place]
        content = Dataset()
        content.DimensionIndexValues = [x + 1, y + 1]
        group.FrameContentSequence = [content]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)


def _pixels(ds: FileDataset, frames: list[bytes], kind: Kind) -> None:
    if kind.syntax == RAW:
        data = b"".join(frames)
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB"
        return
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    if kind.offsets == "extended":
        data, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        ds.PixelData = data
    else:
        ds.PixelData = encapsulate(frames, fragments_per_frame=kind.fragments, has_bot=kind.offsets == "basic")
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True


def halved(rgb: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares; what is left at the right and below is averaged as far as it goes."""
    height, width = ceil_div(rgb.shape[0], factor) * factor, ceil_div(rgb.shape[1], factor) * factor
    whole = np.pad(rgb, ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0)), mode="edge")
    return whole.reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3)).round().astype(np.uint8)


def write_slide(
    folder: Path, rgb: np.ndarray, kind: Kind = Kind(), factors: tuple[int, ...] = (1, 4), mpp: float = 0.5
) -> list[Path]:
    """A slide of several levels, a label and an overview; numbers are 1, 2, … of the levels, then 51 and 52."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, factor in enumerate(factors, 1):
        flavor = (
            ("ORIGINAL", "PRIMARY", "VOLUME", "NONE") if factor == 1 else ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
        )
        level = rgb if factor == 1 else halved(rgb, factor)
        written += write_level(folder, level, mpp * factor, kind, number=number, flavor=flavor)
    small = Kind(series=kind.series, container=kind.container)
    label, overview = np.full((60, 40, 3), 200, np.uint8), np.full((40, 120, 3), 220, np.uint8)
    written += write_level(folder, label, None, small, number=51, flavor=("ORIGINAL", "PRIMARY", "LABEL", "NONE"))
    written += write_level(folder, overview, 20, small, number=52, flavor=("ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"))
    return written


def uid() -> str:
    return str(generate_uid(None))


def header(path: Path) -> Dataset:
    return pydicom.dcmread(path)

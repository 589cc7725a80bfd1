"""Formats of scanners and microscopes: told by name and by content, whether they are read, and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_BIO_FORMATS = "export it as an RGB OME-TIFF, with QuPath or Bio-Formats' bfconvert"


@dataclass(frozen=True, slots=True)
class Vendor:
    """A format that a name or a signature claims.

    Attributes:
        name: as its makers call it, with an article.
        endings: of file names, lower case.
        readers: the readers that give true pixels of it; none where it is not read.
        way_out: what to do where it is not read.
        format: OpenSlide's name of the format where no other may read it: another would read tiles as they lie in the
            file, though they overlap or belong to several areas.
    """

    name: str
    endings: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    way_out: str = _BIO_FORMATS
    format: str | None = None


MIRAX = Vendor("a MIRAX slide (3DHISTECH)", (".mrxs",), ("openslide",), format="mirax")
VMS = Vendor("a Hamamatsu VMS slide", (".vms",), ("openslide",), format="hamamatsu")
VMU = Vendor("a Hamamatsu VMU slide", (".vmu",), ("openslide",), format="hamamatsu")
NDPIS = Vendor("a Hamamatsu NDPIS set", (".ndpis",), way_out="give one of the .ndpi slides that it lists")
VSI = Vendor("an Olympus VSI slide", (".vsi",))
CZI = Vendor("a Zeiss CZI slide", (".czi",), ("openslide",), format="zeiss")
SVSLIDE = Vendor("a Sakura slide", (".svslide",), ("openslide",), format="sakura")
ISYNTAX = Vendor(
    "a Philips iSyntax slide",
    (".isyntax", ".i2syntax"),
    way_out="export it as TIFF from Philips' software, or convert it to DICOM with wsidicomizer",
)

_READ = (
    *(MIRAX, VMS, VMU, CZI, SVSLIDE),
    Vendor("an Aperio slide", (".svs",), ("openslide", "tiff", "tiffslide")),
    Vendor("a Hamamatsu NDPI slide", (".ndpi",), ("openslide",)),
    Vendor("a Leica SCN slide", (".scn",), ("openslide",), format="leica"),
    Vendor("a Ventana BIF slide", (".bif",), ("openslide",), format="ventana"),
)

LIF = Vendor("a Leica LIF file", (".lif", ".lof", ".xlef"))
ND2 = Vendor("a Nikon ND2 file", (".nd2",))
OIR = Vendor("an Olympus or Evident image", (".oir", ".oib", ".oif", ".poir", ".omp2info"))
AFI = Vendor(
    "an Aperio AFI list of fluorescence scans", (".afi",), way_out="fluorescence is not segmented; give an H&E slide"
)
JP2 = Vendor(
    "a JPEG 2000 picture",
    (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    way_out="convert it to a tiled TIFF, with vips tiffsave --tile --pyramid",
)
DZI = Vendor("a Deep Zoom image", (".dzi", ".szi", ".dzc"), way_out="give the slide that it was made from")

_NOT_READ = (
    *(NDPIS, VSI, ISYNTAX, LIF, ND2, OIR, AFI, JP2, DZI),
    Vendor("a KFBio KFB slide", (".kfb", ".kfbf"), way_out="convert it to SVS or TIFF with KFBio's converter"),
    Vendor("a Sqray SDPC slide", (".sdpc", ".dyj", ".dyqx"), way_out="convert it to SVS or TIFF with Sqray's software"),
    Vendor("a UNIC TMAP slide", (".tmap",), way_out="export it as TIFF from UNIC's viewer"),
    Vendor("a Motic slide", (".mds", ".mdsx"), way_out="export it as SVS or TIFF from Motic's DSAssistant"),
    Vendor("a TRON slide", (".tron",), way_out="export it as TIFF from its scanner's software"),
    Vendor("an Olympus ETS file, the pixels of a VSI slide", (".ets",)),
    Vendor("a Zeiss ZVI file", (".zvi",)),
    Vendor("a Zeiss LSM file", (".lsm",), way_out="fluorescence is not segmented; give an H&E slide"),
    Vendor("a MetaMorph file", (".stk", ".nd")),
    Vendor("an Imaris file", (".ims",)),
    Vendor("a VSF slide", (".vsf", ".ysm", ".bimg"), way_out="export it as TIFF from its scanner's software"),
)

VENDORS = _READ + _NOT_READ


def vendor_by_name(path: Path) -> Vendor | None:
    """The vendor whose ending a file's name has."""
    name = path.name.lower()
    return next((one for one in VENDORS if name.endswith(one.endings)), None)


def vendor_by_content(head: bytes) -> Vendor | None:
    """The vendor whose signature a file begins with.

    TIFFs have none here: OpenSlide tells their vendors from tags that may lie anywhere.

    Args:
        head: the first bytes of the file, some thousands.
    """
    for start, vendor in _SIGNATURES:
        if head.startswith(start):
            return vendor
    if head[:4] == b"\x70\0\0\0" and head[8:9] == b"\x2a":
        return LIF
    text = head[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((vendor for start, part, vendor in _TEXTS if text.startswith(start) and part in text), None)


_SIGNATURES = (
    (b"ZISRAWFILE", CZI),
    (b"\xda\xce\xbe\x0a", ND2),
    (b"OLYMPUSRAWFORMAT", OIR),
    (b"\0\0\0\x0cjP  ", JP2),
    (b"\xff\x4f\xff\x51", JP2),
)
_TEXTS = (
    (b"[", b"[Virtual Microscope Specimen]", VMS),
    (b"[", b"[Uncompressed Virtual Microscope Specimen]", VMU),
    (b"[", b"[NanoZoomer Digital Pathology Image Set]", NDPIS),
    (b"<", b"DPUfsImport", ISYNTAX),
    (b"<", b"<ImageList", AFI),
    (b"<", b"http://schemas.microsoft.com/deepzoom", DZI),
)
"""How a text begins, and what stands near its beginning."""

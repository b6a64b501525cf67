"""Checks on image files: damage, size, turning by EXIF, and what is stored in an unusual way."""

from collections.abc import Mapping, Sequence

from retinamask.dataset.audit.findings import Example, Finding, found
from retinamask.dataset.audit.looking import Look

_TROUBLES = {
    "missing": ("missing image", "The table names images that are not there: training on it stops or leaves them out. "
                "Put them back, or leave them out of the table."),
    "unreadable": ("unreadable image", "Not an image of a known format. Replace the files or leave them out."),
    "damaged": ("damaged image", "Cut short or broken inside. Fetch the files again or leave them out."),
    "too large": ("too many pixels", "More pixels than an image may have: a decompression bomb, or a scan that is "
                  "to be made smaller. Such files are not decoded; make them smaller or leave them out."),
}  # fmt: skip

_TRAITS = {
    "CMYK": ("CMYK image", "warning", "Made for print: readers disagree about the colours. Save the images as RGB."),
    "16 bits": ("16-bit image", "warning", "retinamask scales them to 8 bits, keras-retinanet's reader cuts grey ones "
                "off at 255, which leaves them white. Save the images with 8 bits."),
    "1 bit": ("black-and-white image", "warning", "Only black and white, no grey between: a scan rather than a "
              "photograph. Look whether they belong here."),
    "palette": ("palette image", "note", "At most 256 colours; read as RGB without harm."),
    "transparent": ("transparent pixels", "warning", "Transparency is dropped when the network reads an image, and "
                    "colours that no viewer shows come up. Flatten the images onto a background."),
    "opaque alpha": ("alpha channel", "note", "All of it is opaque, so that nothing is lost when it is dropped."),
}  # fmt: skip


def check_images(looks: Sequence[Look]) -> list[Finding]:
    """Findings about the files alone: what cannot be read, what EXIF turns, what is stored unusually."""
    findings = []
    for trouble, (name, message) in _TROUBLES.items():
        cases = [Example((look.path,), look.message) for look in looks if look.trouble == trouble]
        findings += found(name, "error", "images", message, cases)
    findings += _turned(looks)
    for trait, (name, severity, message) in _TRAITS.items():
        cases = [Example((look.path,)) for look in looks if trait in look.traits]
        findings += found(name, severity, "images", message, cases)
    return findings


def check_written_sizes(looks: Mapping[str, Look], written_sizes: Mapping[str, tuple[int, int]]) -> list[Finding]:
    """Compare sizes that annotations name with those of the upright image.

    Args:
        looks: by path.
        written_sizes: the width and height that the annotation of an image names, by path; images may be left out.
    """
    cases = []
    for path, written in written_sizes.items():
        look = looks[path]
        if look.upright_wh and written not in (look.upright_wh, look.size_wh):
            cases.append(Example((path,), f"it says {shown(written)}, the image has {shown(look.upright_wh)}"))
    message = (
        "The image was changed after it was annotated, or the annotation belongs to another: its boxes "
        "are likely to be shifted. Look at the boxes; scale or redraw them."
    )
    return found("annotation of another size", "error", "images", message, cases)


def shown(size_wh: tuple[int, int]) -> str:
    """A size in words."""
    return f"{size_wh[0]} x {size_wh[1]}"


def _turned(looks: Sequence[Look]) -> list[Finding]:
    cases = [
        Example((look.path,), f"EXIF orientation {look.orientation}, stored as {shown(look.size_wh)}")
        for look in looks
        if look.orientation != 1
    ]
    message = (
        "labelImg, OpenCV and retinamask turn these images as EXIF asks; keras-retinanet's own reader, PIL and tf.io "
        "do not, and see their boxes in the wrong place. Store the pixels upright and drop the EXIF orientation."
    )
    return found("turned by EXIF", "warning", "images", message, cases)

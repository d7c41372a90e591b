"""Samples of one frame as arrays: from native bytes and back, in the right container and sign.

What all decoders share: the types they return, the native layouts, and the checks that a code
stream is the image its data set describes.

References
----------
PS3.5 8.1.1 (pixel cells); PS3.3 C.7.6.3.1.2 and C.7.6.3.1.3 (sub-sampling, planes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.base.late import late
from pacsteward.dicom.fragments import Buffer
from pacsteward.dicom.pixels import ImagePixel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = late("numpy")

Samples: TypeAlias = "npt.NDArray[Any]"


class Decoded(NamedTuple):
    """The samples of one frame, interleaved by pixel, and how their colours are meant."""

    samples: Samples
    photometric_interpretation: str


class Announced(NamedTuple):
    """What a code stream says of itself before its data begin."""

    rows: int
    columns: int
    components: int
    precision: int


def native_samples(data: Buffer, image: ImagePixel) -> Decoded:
    """Return the samples of one native little endian frame; no codec is involved."""
    if len(data) < image.frame_length:
        raise damaged(f"{len(data)} bytes where {image.frame_length} are needed")
    photometric = image.photometric_interpretation
    if image.bits_allocated == 1:
        bits = np.frombuffer(data, np.uint8, image.frame_length)
        samples = np.unpackbits(bits, count=image.samples, bitorder="little")
        return Decoded(shaped(samples, image), photometric)
    values = np.frombuffer(data, container(image), image.frame_bits // image.bits_allocated)
    if image.is_sub_sampled:
        return Decoded(_expanded_422(values, image), photometric.removesuffix("_422"))
    return Decoded(shaped(values, image), photometric)


def native_bytes(samples: Samples) -> bytes:
    """Return samples as one native little endian frame, interleaved by pixel."""
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def stored_values(samples: Samples, image: ImagePixel) -> Samples:
    """Return the pixel values without what else is in their containers.

    Bits above High Bit or below the stored ones may carry overlays (retired, and still met); the
    sign is that of the stored bits (PS3.5 8.1.1).
    """
    if image.is_float or image.bits_stored >= image.bits_allocated:
        return samples
    left = image.bits_allocated - 1 - image.high_bit
    right = image.bits_allocated - image.bits_stored
    # Shifting left drops what is above; shifting right fills with the sign of signed types.
    return (samples << left) >> right


def container(image: ImagePixel) -> np.dtype[Any]:
    """Return the array type that holds the samples of an image.

    Raises
    ------
    Unsupported
        Samples are of another width than 8, 16, 32 or 64 bits.
    """
    if image.bits_allocated not in (8, 16, 32, 64):
        raise Unsupported(
            "The image was not decoded.",
            why=f"Its samples have {image.bits_allocated} bits allocated.",
            remedy="Retrieve the object as it is stored.",
        )
    kind = "f" if image.is_float else "i" if image.is_signed else "u"
    return np.dtype(f"<{kind}{image.bits_allocated // 8}")


def shaped(samples: Samples, image: ImagePixel, planar_configuration: int | None = None) -> Samples:
    """Return flat samples as an array interleaved by pixel (PS3.3 C.7.6.3.1.3)."""
    if image.samples_per_pixel == 1:
        return samples.reshape(image.rows, image.columns)
    planar = image.planar_configuration if planar_configuration is None else planar_configuration
    if planar:
        planes = samples.reshape(image.samples_per_pixel, image.rows, image.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return samples.reshape(image.rows, image.columns, image.samples_per_pixel)


def _expanded_422(values: Samples, image: ImagePixel) -> Samples:
    """Return Y, Cb, Cr for each pixel from Y Y Cb Cr for each two (PS3.3 C.7.6.3.1.2)."""
    pairs = values.reshape(-1, 4)
    samples = np.empty((len(pairs), 2, 3), values.dtype)
    samples[:, :, 0] = pairs[:, :2]
    samples[:, :, 1:] = pairs[:, None, 2:]
    return samples.reshape(image.rows, image.columns, 3)


def check_announced(announced: Announced, image: ImagePixel) -> None:
    """Raise `Invalid` when the stream is not the image that the data set describes."""
    described = (image.rows, image.columns, image.samples_per_pixel)
    if announced[:3] != described:
        raise damaged(
            "its stream has {} rows, {} columns and {} components".format(*announced[:3])
            + ", and its attributes say {}, {} and {}".format(*described)
        )
    if announced.precision > max(image.bits_allocated, 8) or announced.precision < 1:
        raise damaged(
            f"its stream has {announced.precision} bits a sample, and BitsAllocated is "
            f"{image.bits_allocated}"
        )


def widened(samples: Samples, image: ImagePixel, precision: int) -> Samples:
    """Return decoded samples in the container and with the sign that the data set gives.

    Streams say nothing of the sign (JPEG, JPEG-LS), or say the wrong thing (JPEG 2000 of some
    writers). The lowest ``precision`` bits are the sample; Pixel Representation decides.
    """
    if image.bits_allocated == 1:
        return samples.astype(np.uint8, copy=False)
    dtype = container(image)
    if not image.is_signed:
        if samples.dtype.kind == "i":
            samples = samples & ((1 << precision) - 1)
        return samples.astype(dtype, copy=False)
    if samples.dtype.kind == "i":
        return samples.astype(dtype, copy=False)
    unused = samples.dtype.itemsize * 8 - precision
    as_signed = (samples << unused).view(f"<i{samples.dtype.itemsize}") >> unused
    return as_signed.astype(dtype, copy=False)


def damaged(detail: str) -> Invalid:
    """Return the error for a stream that cannot be decoded, with what is wrong with it."""
    return Invalid(
        "The image could not be decoded.",
        why=f"Its pixel data are damaged: {detail}.",
        remedy="Compare with the sender's copy, and send it again.",
    )

"""What a modality makes of a patient: DICOM objects of one study.

References
----------
PS3.3 A.3 (CT), A.4 (MR), A.2 (CR), A.7 (US Multi-frame) — the modules of each object.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacsteward.hospital import phantoms
from pacsteward.hospital.patients import Patient, patient

UID_ROOT = "2.25.310218842037415563291"
"""A root of the pretend hospital's own, so that its studies are recognised anywhere."""

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.3.1",
}


@dataclass(frozen=True, slots=True)
class Order:
    """One examination: who, what, when."""

    seed: int
    number: int
    patient: Patient
    modality: str
    description: str
    performed_at: datetime

    @property
    def study_instance_uid(self) -> str:
        """UID of the study; the same order always has the same one."""
        return f"{UID_ROOT}.{self.seed}.{self.number + 1}"


_DESCRIPTIONS = {
    "CT": "CT Kopf nativ",
    "MR": "MR Schädel T1",
    "CR": "Thorax p.a.",
    "US": "Echokardiographie",
}


def orders(seed: int, studies: int, day: datetime) -> Iterator[Order]:
    """Give the orders of a morning: CT, MR, CR and US in turn, some patients twice."""
    chance = random.Random(f"{seed}/orders")  # noqa: S311 — a pretend morning
    for number in range(studies):
        modality = ("CT", "CR", "MR", "US")[number % 4]
        yield Order(
            seed=seed,
            number=number,
            patient=patient(seed, number % max(1, studies - studies // 5)),
            modality=modality,
            description=_DESCRIPTIONS[modality],
            performed_at=day.replace(hour=7, minute=30)
            + timedelta(minutes=number * 7 + chance.randrange(5)),
        )


def objects(order: Order, *, scale: int = 1) -> Iterator[Dataset]:
    """Make the objects of one examination, in the order in which the modality sends them.

    Parameters
    ----------
    scale
        How many times fewer and smaller the images are, 1 to 8; for a day of many examinations.
    """
    return {"CT": _ct, "MR": _mr, "CR": _cr, "US": _us}[order.modality](order, scale)


def _ct(order: Order, scale: int) -> Iterator[Dataset]:
    volume = phantoms.ct_head(24 // scale, 256 // scale, order.number)
    for index, image in enumerate(volume):
        data = _image(order, 1, "Axial 5mm", index, image, bits=16)
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
        data.WindowCenter, data.WindowWidth = "40", "90"
        data.KVP, data.SliceThickness = "120", "5"
        _place(data, index, spacing=0.9 * scale, thickness=5.0 * scale)
        data.PixelData = (image + 1024).astype(np.uint16).tobytes()
        yield data


def _mr(order: Order, scale: int) -> Iterator[Dataset]:
    for series, (name, turn) in enumerate((("T1 tra", 0), ("T1 tra KM", 1)), start=1):
        volume = phantoms.mr_brain(16 // scale, 192 // scale, order.number + turn)
        for index, image in enumerate(volume):
            data = _image(order, series, name, index, image, bits=12)
            data.ScanningSequence, data.SequenceVariant = "SE", "NONE"
            data.ScanOptions, data.MRAcquisitionType = "", "2D"
            data.EchoTime, data.RepetitionTime = "12", "520"
            data.WindowCenter, data.WindowWidth = "450", "900"
            _place(data, index, spacing=1.2 * scale, thickness=6.0 * scale)
            yield data


def _cr(order: Order, scale: int) -> Iterator[Dataset]:
    (image,) = phantoms.cr_chest(1024 // scale, order.number)
    data = _image(order, 1, "Thorax p.a.", 0, image, bits=12)
    data.BodyPartExamined, data.ViewPosition = "CHEST", "PA"
    data.WindowCenter, data.WindowWidth = "1600", "3200"
    data.ImagerPixelSpacing = [f"{0.2 * scale:.1f}"] * 2
    data.PatientOrientation = ["L", "F"]
    yield data


def _us(order: Order, scale: int) -> Iterator[Dataset]:
    film = phantoms.us_heart(20 // scale, 300 // scale, 400 // scale, order.number)
    data = _image(order, 1, "4-Kammer", 0, film[0], bits=8)
    data.NumberOfFrames = str(len(film))
    data.FrameTime = "40"
    data.FrameIncrementPointer = 0x00181063
    data.PixelData = film.tobytes()
    yield data


def _image(
    order: Order, series: int, name: str, index: int, image: NDArray[np.generic], *, bits: int
) -> Dataset:
    """Fill in what all images share."""
    data = Dataset()
    person = order.patient
    moment = order.performed_at + timedelta(seconds=index)
    data.SpecificCharacterSet = person.specific_character_set or None
    data.SOPClassUID = SOP_CLASSES[order.modality]
    data.StudyInstanceUID = order.study_instance_uid
    data.SeriesInstanceUID = f"{order.study_instance_uid}.{series}"
    data.SOPInstanceUID = f"{order.study_instance_uid}.{series}.{index + 1}"
    data.PatientID, data.IssuerOfPatientID = person.patient_id, "PRETEND_HOSPITAL"
    data.PatientName, data.PatientSex = person.patient_name, person.patient_sex
    data.PatientBirthDate = person.patient_birth_date
    data.StudyDate = data.SeriesDate = order.performed_at.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = order.performed_at.strftime("%H%M%S")
    data.ContentDate, data.ContentTime = data.StudyDate, moment.strftime("%H%M%S")
    data.AccessionNumber = f"A{order.seed % 1000:03d}{order.number:06d}"
    data.StudyID = str(order.number + 1)
    # Descriptions are written in the patient's character set only when it can carry them.
    data.StudyDescription = order.description
    if person.specific_character_set not in ("ISO_IR 100", "ISO_IR 192"):
        data.StudyDescription = order.description.replace("ä", "ae")
    data.SeriesDescription = name
    data.ReferringPhysicianName = "House^Gregory"
    data.Modality = order.modality
    data.Manufacturer = "Pretend Imaging"
    data.ManufacturerModelName = f"Phantom {order.modality}"
    data.StationName = f"{order.modality}1"
    data.InstitutionName = "Pretend Hospital"
    data.SeriesNumber, data.InstanceNumber = str(series), str(index + 1)
    data.AcquisitionNumber = "1"
    data.ImageType = ["ORIGINAL", "PRIMARY"] + (["AXIAL"] if order.modality in ("CT", "MR") else [])
    data.Rows, data.Columns = image.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = 8 if bits == 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, 0
    data.PixelData = image.astype(np.uint8 if bits == 8 else np.uint16).tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    data.file_meta = _file_meta(data)
    return data


def _place(data: Dataset, index: int, *, spacing: float, thickness: float) -> None:
    """Give an axial slice its place in the patient, PS3.3 C.7.6.2."""
    data.FrameOfReferenceUID = f"{data.StudyInstanceUID}.0"
    data.PositionReferenceIndicator = ""
    data.PixelSpacing = [f"{spacing:g}"] * 2
    data.SliceThickness = f"{thickness:g}"
    data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    half = spacing * data.Columns / 2
    data.ImagePositionPatient = [f"{-half:.2f}", f"{-half:.2f}", f"{index * thickness:.2f}"]
    data.SliceLocation = f"{index * thickness:.2f}"


def _file_meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta

"""The console's pages of studies: the list, one study, one header."""

from __future__ import annotations

from pacsteward.base.errors import Invalid
from pacsteward.dicom.uids import TRANSFER_SYNTAXES, check_uid
from pacsteward.feature import House, Page
from pacsteward.features.query import browse, report, study
from pacsteward.web import (
    Column,
    Grid,
    Request,
    Response,
    is_inline,
    query_text,
    render,
    wishes_of,
)

COLUMNS = (
    Column("Patient", "patient"),
    Column("Patient ID", "id"),
    Column("Born, sex", "born"),
    Column("Study date", "date"),
    Column("Modality"),
    Column("Description", "description"),
    Column("Accession no.", "accession"),
    Column("Images", is_number=True),
    Column(""),
)
ROWS = 50
FILTERS = ("days", "since", "until", "modality", "patient", "accession")
ASKED = {"words": "q"} | {name: name for name in FILTERS}
"""What the audit book calls the parameters of the address."""
INSTANCES_SHOWN = 100
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def list_studies(house: House, request: Request) -> Response:
    """Show the studies that the address asks for."""
    wishes = wishes_of(request, COLUMNS, sort="-date", keep=FILTERS)
    wanted = browse.Wanted(
        words=wishes.search,
        days=query_text(request, "days"),
        since=browse.day(query_text(request, "since", 16)),
        until=browse.day(query_text(request, "until", 16)),
        modality=query_text(request, "modality", 16),
        patient_id=query_text(request, "patient", 64),
        accession_number=query_text(request, "accession", 64),
    )
    fault = None
    house.audit.make_room()
    found = browse.StudyList((), 0, "")
    try:
        found = browse.list_studies(
            house.archive,
            wanted,
            house.clock.now().astimezone().date(),
            order_by=tuple((tag, wishes.is_descending) for tag in browse.SORTS[wishes.sort]),
            limit=ROWS,
            offset=(wishes.page - 1) * ROWS,
        )
    except Invalid as error:
        # The filters stay on the page, so that the wrong one can be corrected.
        fault = error
    house.audit.record_query(
        request.state.actor,
        level="STUDY",
        keys=[word for word, name in ASKED.items() if request.query_params.get(name)],
        matches=len(found.rows),
    )
    return render(
        request,
        "query/study_rows.html" if is_inline(request) else "query/studies.html",
        status_code=400 if fault else 200,
        fault=fault,
        grid=Grid(COLUMNS, found.rows, found.total, wishes, ROWS),
        wanted=wanted,
        read_as=found.read_as,
        days=browse.DAYS,
        modalities=browse.MODALITIES,
    )


def show_study(house: House, request: Request) -> Response:
    """Show one study with its series."""
    uid = check_uid(request.path_params["study"], "StudyInstanceUID")
    found = study.read_study(house.archive, uid)
    house.audit.record_access(request.state.actor, (uid,))
    return render(
        request,
        "query/study.html",
        study=found,
        series=study.list_series(house.archive, uid),
        can_download=request.state.actor.may("studies.download"),
    )


def show_series(house: House, request: Request) -> Response:
    """Show the instances of one series."""
    study_uid = check_uid(request.path_params["study"], "StudyInstanceUID")
    series_uid = check_uid(request.path_params["series"], "SeriesInstanceUID")
    found = study.read_study(house.archive, study_uid)
    series = study.find_series(house.archive, study_uid, series_uid)
    wishes = wishes_of(request, ())
    instances = study.list_instances(
        house.archive,
        study_uid,
        series_uid,
        limit=INSTANCES_SHOWN,
        offset=(wishes.page - 1) * INSTANCES_SHOWN,
    )
    house.audit.record_access(request.state.actor, (study_uid,))
    return render(
        request,
        "query/series.html",
        study=found,
        series=series,
        grid=Grid((), instances, int(series.number_of_instances or 0), wishes, INSTANCES_SHOWN),
        syntaxes=TRANSFER_SYNTAXES,
    )


def show_instance(house: House, request: Request) -> Response:
    """Show every attribute of one instance."""
    study_uid = check_uid(request.path_params["study"], "StudyInstanceUID")
    series_uid = check_uid(request.path_params["series"], "SeriesInstanceUID")
    sop_uid = check_uid(request.path_params["instance"], "SOPInstanceUID")
    instance = house.archive.instance(study_uid, series_uid, sop_uid)
    data_set = study.read_data_set(house.archive, study_uid, series_uid, sop_uid)
    report_lines = report.read_report(data_set)
    house.audit.record_access(request.state.actor, (study_uid,))
    return render(
        request,
        "query/instance.html",
        study=study.read_study(house.archive, study_uid),
        instance=instance,
        sop_class=study.name_of_sop_class(instance.sop_class_uid),
        lines=study.header_lines(data_set),
        report_title=report.title_of(data_set),
        report=report_lines,
        places=study.places_of(house.archive, (line.sop_instance_uid for line in report_lines)),
        syntaxes=TRANSFER_SYNTAXES,
        is_pdf=instance.sop_class_uid == ENCAPSULATED_PDF,
    )


_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"

PAGES = (
    Page("/studies", list_studies, "studies.find", "Studies", menu=20, is_start=True),
    Page(_STUDY, show_study, "studies.read", "Study"),
    Page(_SERIES, show_series, "studies.read", "Series"),
    Page(_SERIES + "/instances/{instance}", show_instance, "studies.read", "Instance"),
)

"""DIMSE, spoken: the DICOM upper layer and its messages, for those who serve and those who ask.

A room gives a `Service` (see `service.py`); the application makes one `DimseServer` of all of them
and starts it. Who asks other systems uses `connect`. Everything else in this folder is inside.

===================  ===================================================================
``limits``           sizes, times and numbers, with their reasons
``pdu``              the seven PDUs; ``user_information``: their sub-items
``machine``          the state table of PS3.8, without any I/O
``negotiate``        contexts, roles, extensions, reasons to refuse
``message``          command sets; messages cut into PDUs
``receive_buffer``   where bytes arrive, copied once
``association``      the upper layer on a socket
``conversation``     messages on an association; ``operation``: one request of the peer;
                     ``outgoing``: what we send; ``responses``: to one request of ours
``server``           the door; ``events``: what it tells; ``client``: the other side of it
``service``          the contract with the rooms; ``failure``: their errors as statuses
``quirks``           named deviations, allowed per peer
===================  ===================================================================
"""

from pacsteward.dicom.dimse.association_user import AssociationAborted
from pacsteward.dicom.dimse.client import AssociationRefused, ClientAssociation, connect
from pacsteward.dicom.dimse.events import (
    AssociationClosed,
    AssociationOpened,
    AssociationRejected,
    ConnectionDropped,
    DoorEvent,
)
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.message import Response
from pacsteward.dicom.dimse.negotiate import (
    CALLED_NOT_RECOGNIZED,
    CALLING_NOT_RECOGNIZED,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    ProposedContext,
    is_ae_title,
)
from pacsteward.dicom.dimse.quirks import Quirk
from pacsteward.dicom.dimse.responses import Responses
from pacsteward.dicom.dimse.server import DimseServer
from pacsteward.dicom.dimse.service import (
    Admit,
    Admitted,
    Answer,
    Answers,
    Caller,
    CommandField,
    DataSink,
    PacedSink,
    PresentationContext,
    Receive,
    Refused,
    Request,
    Respond,
    Service,
    SubOperationChannel,
    SubOperations,
    UserIdentity,
)
from pacsteward.dicom.dimse.user_information import ProtocolError

__all__ = [
    "CALLED_NOT_RECOGNIZED",
    "CALLING_NOT_RECOGNIZED",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "LOCAL_LIMIT_EXCEEDED",
    "TEMPORARY_CONGESTION",
    "Admit",
    "Admitted",
    "Answer",
    "Answers",
    "AssociationAborted",
    "AssociationClosed",
    "AssociationOpened",
    "AssociationRefused",
    "AssociationRejected",
    "Caller",
    "ClientAssociation",
    "CommandField",
    "ConnectionDropped",
    "DataSink",
    "DimseServer",
    "DoorEvent",
    "Limits",
    "PacedSink",
    "PresentationContext",
    "ProposedContext",
    "ProtocolError",
    "Quirk",
    "Receive",
    "Refused",
    "Request",
    "Respond",
    "Response",
    "Responses",
    "Service",
    "SubOperationChannel",
    "SubOperations",
    "UserIdentity",
    "connect",
    "is_ae_title",
]

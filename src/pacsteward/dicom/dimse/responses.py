"""The responses to one request of ours that has many: C-FIND, C-MOVE, C-GET.

References
----------
PS3.7 9.1.2-9.1.4 and 9.3.2.3 (C-CANCEL).
"""

from __future__ import annotations

import asyncio

from pacsteward.dicom.dimse.conversation import Conversation
from pacsteward.dicom.dimse.message import CommandSet, Response
from pacsteward.dicom.dimse.outgoing import DataSet, Exchange
from pacsteward.dicom.dimse.service import CommandField, Receive, Service


class Responses:
    """The responses to one C-FIND, C-MOVE or C-GET, in order; the last one is not pending.

    An async iterator: the request is sent when the first response is asked for.
    """

    def __init__(
        self,
        conversation: Conversation,
        context_id: int,
        command: CommandSet,
        identifier: DataSet,
        on_store: Receive | None = None,
        before: Responses | None = None,
    ) -> None:
        self._conversation = conversation
        self._context_id = context_id
        self._command = command
        self._identifier = identifier
        self._on_store = on_store
        self._before = before
        self._exchange: Exchange | None = None
        self._cancel_sent = False
        self.final: Response | None = None
        """The response that ended it; None until then."""
        self.is_over = False

    def __aiter__(self) -> Responses:
        return self

    async def __anext__(self) -> Response:
        if self.is_over:
            raise StopAsyncIteration
        try:
            if self._exchange is None:
                self._exchange = await self._begin()
            response = await self._conversation.outgoing.next_response(self._exchange)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._end()
            raise
        if not response.is_pending:
            self.final = response
            self._end()
        return response

    async def cancel(self) -> Response | None:
        """Ask the peer to stop, wait until it has, and return its last word.

        None when nothing had been asked yet.
        """
        if self._exchange is None:
            self.is_over = True
        elif not self.is_over:
            if not self._cancel_sent:
                self._cancel_sent = True
                await self._conversation.outgoing.cancel(self._exchange)
            async for _response in self:
                pass
        return self.final

    async def _begin(self) -> Exchange:
        """Send the request, after stopping what nobody asks for any more."""
        before, self._before = self._before, None
        if before is not None:
            await before.cancel()
        if self._on_store is not None:
            self._conversation.extra_services[CommandField.C_STORE] = Service(
                name="sub-operations",
                commands=frozenset({CommandField.C_STORE}),
                accepts=lambda _uid: True,
                permission="",
                receive=self._on_store,
            )
        return await self._conversation.outgoing.begin(
            self._context_id, self._command, self._identifier
        )

    def _end(self) -> None:
        self.is_over = True
        if self._on_store is not None:
            self._conversation.extra_services.pop(CommandField.C_STORE, None)

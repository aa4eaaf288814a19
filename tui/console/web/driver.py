"""The driver of a console in a tab: Textual's own, which ends also when the server has gone."""

from __future__ import annotations

import os
from contextlib import suppress

from textual import messages
from textual.drivers.web_driver import WebDriver


class TabDriver(WebDriver):
    """Nobody could see or end a console whose server was killed: the end of its input is its end."""

    def run_input_thread(self) -> None:
        """Until the end of the input; the application is told when it was not the one to end."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._write = self._write_if_heard  # type: ignore[assignment]
            self._app.post_message(messages.ExitApp())

    def _write_if_heard(self, data: bytes) -> int:
        with suppress(OSError):
            return os.write(self.fileno, data)
        return 0

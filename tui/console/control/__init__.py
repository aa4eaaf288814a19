"""Controllers: what acts do beyond one page. They are given the shell, and know dialogs but no page."""

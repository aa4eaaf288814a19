"""Dialogs: boxes over a page that wait for an answer."""

"""Controllers: what keys do beyond one page. They are given the shell, and know dialogs but no page.

``anywhere`` has the keys of every page; each other module is about one thing that an operator does.
"""

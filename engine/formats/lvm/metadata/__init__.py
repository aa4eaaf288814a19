"""The volume ``dw-meta``: its layout, its pages, and what is kept there: header, records, progress."""

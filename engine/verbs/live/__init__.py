"""Verbs on a disk whose machine runs: they do by its monitor what it would have to be stopped for. Each begins with the
question whether that can be spoken to; if not, it is the verb of the same name beside this folder."""

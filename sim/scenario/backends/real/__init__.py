"""Backends of real kernels: each operation is a process of its own, which a real signal interrupts.

``base`` is what both have in common, ``local`` this machine, ``lab`` the guests of a lab (on machines from
``clusters``). ``worker`` is the process of an operation, ``doors`` what its engine works through.
"""

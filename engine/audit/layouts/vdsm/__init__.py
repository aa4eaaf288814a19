"""Domains of VDSM (oVirt): ``files`` and ``volumes`` (of a volume group), and the ``metadata`` of volumes in both."""

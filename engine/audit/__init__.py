"""Looking at image files that are in no repository: directories of libvirt, Proxmox VE, oVirt, or of nobody.

Lives here: what each layout has where (``layouts/``), who refers to what (``definitions``, ``names``, ``readings``,
``places``), what an image says of itself (``headers``), and what follows from that (``chains``, ``orphans``,
``rules``). Nothing here writes, opens what a name in a file says before it was found below a given place, or starts a
program unless a deep audit was asked for. Does not live here: taking images over.
"""

"""Layouts: how systems that manage machines lay out their images in directories and volume groups. Each is a class with
the methods of ``base.Layout``; ``registry`` finds the one that fits."""

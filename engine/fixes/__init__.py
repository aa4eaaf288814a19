"""What each fix does, step by persisted step.

``create``, ``copy``, ``import_image``: finish what a verb has committed. ``rebuild``: a fresh volume for an image.
``merge``: two layers become one. ``repair``: small repairs in place. ``mend_record``: a damaged record. ``clean``:
delete what no image needs. ``fill`` moves the data for all of them, ``run`` leads from a fix to what does it. What a
verb commits is in ``engine.verbs``, whether a fix is offered in ``engine.triage``.

Every step may be the last one before a crash. What was being made or deleted stays named by a record, so the same rule
(or a clean) fires again and goes on.
"""

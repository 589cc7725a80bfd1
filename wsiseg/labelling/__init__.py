"""Labels for patches, made by people: which patches to show, what was answered, and the data set it becomes.

Knows no browser: `wsiseg.server.label` shows pages of it and passes keys on.
"""

"""The dashboard: screens over the lab. A second face of the library, beside the command line.

Invariant: no rule, default or computation lives here, and no text from outside reaches a widget but through `cells`.
"""

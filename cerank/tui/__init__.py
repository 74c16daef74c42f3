"""The dashboard: screens over the application layer, beside the command line.

Invariant: no rule, default or computation lives here, and no text from outside reaches a widget but through `cells`.
"""

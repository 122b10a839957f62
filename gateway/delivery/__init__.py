"""Delivery: sends what waits to the store, and removes what the store has proved to have.

Each stream has a lane of its own, so that a bucket that is away holds up nothing but its own stream. The key of an object is
made from what was fixed at receipt or claim, never at the moment of sending, and a put never replaces an object:

    put if absent ─▶ stored, or this very object is there ─▶ retire
                  └▶ another object is there ─▶ next number ─▶ put if absent …
"""

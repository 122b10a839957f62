"""Tries an S3 server out: what of S3 holds there, and which settings the gateway needs for it.

__main__.py   the command line
session.py    the clients, and what was made and has to be removed again
objects.py    what is tried with whole objects
parts.py      what is tried with objects in parts
errors.py     what is tried with requests that have to be refused
finding.py    what was found
verdict.py    whether the gateway can keep its promise there, and with which settings
"""

"""Admission: whether there is room for one more request, decided from its head alone.

Room is counted in memory (`memory`), on the disk (`disk_room`) and in file descriptors (`descriptors`). What is charged is
what is written, not what a client announces. Overload is refused before the body is read.
"""

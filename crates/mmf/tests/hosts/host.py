"""Loads the guest into Python, whose faulthandler reports faults by a handler of its own.

host.py GUEST FILE WHEN: FILE has 3 pages; WHEN faulthandler is enabled: `before` or `after` the first mapping, or `at last`,
after which a sync and no mapping follows.
Says `alive` when the guest has met a page that is gone, and then reads one without a guard.
"""

import ctypes
import faulthandler
import mmap
import os
import sys

guest = ctypes.CDLL(sys.argv[1])
guest.guest_open.restype = ctypes.c_void_p
guest.guest_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
guest.guest_close.argtypes = [ctypes.c_void_p]
guest.guest_sync.argtypes = [ctypes.c_void_p]
path, when = sys.argv[2], sys.argv[3]
bytes_read = ctypes.create_string_buffer(4)


def read(mapped, offset):
    return guest.guest_read(mapped, offset, bytes_read, 4)


with open(path, "r+b") as file:
    unguarded = mmap.mmap(file.fileno(), 0)
if when == "before":
    faulthandler.enable()
first = guest.guest_open(path.encode())
assert first and read(first, 2 * mmap.PAGESIZE) == 0
if when == "after":
    faulthandler.enable()
# The next mapping takes up again what was taken away.
second = guest.guest_open(path.encode())
if when == "at last":
    faulthandler.enable()
    assert guest.guest_sync(second) == 0
os.truncate(path, mmap.PAGESIZE)
for mapped in first, second:
    assert read(mapped, 2 * mmap.PAGESIZE) == 1, "a page that is gone"
    assert read(mapped, 0) == 0, "one that is there"
guest.guest_close(second)
print("alive", flush=True)


def genuine_fault():
    return unguarded[2 * mmap.PAGESIZE]


genuine_fault()

"""Shared memory as Python's own library makes and opens it.

shared.py create NAME SIZE | shared.py open NAME

Says `ready LENGTH BYTES`, where BYTES are the first 8, then hears a line, says the 8 bytes at offset 100, hears another
and ends: `unlink` removes the name first.
"""

import sys
from multiprocessing import resource_tracker, shared_memory

verb, name = sys.argv[1], sys.argv[2]
if verb == "create":
    memory = shared_memory.SharedMemory(name, create=True, size=int(sys.argv[3]))
    memory.buf[:8] = b"a python"
else:
    memory = shared_memory.SharedMemory(name)
print("ready", memory.size, bytes(memory.buf[:8]).decode(), flush=True)
sys.stdin.readline()
print(bytes(memory.buf[100:108]).decode(), flush=True)
memory.buf[200:208] = b"python 2"
print("written", flush=True)
order = sys.stdin.readline().strip()
memory.close()
if order == "unlink":
    memory.unlink()
else:
    # Or Python's tracker unlinks it at the end, though it was only opened.
    resource_tracker.unregister(memory._name, "shared_memory")

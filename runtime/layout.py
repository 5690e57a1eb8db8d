"""Takes nothing, gives where an ndarray keeps what it is, if that is where NumPy documents it.

PyArrayObject_fields is part of NumPy's ABI and has been the same since its first release. All the
same the first array is compared with what NumPy says of it, and where anything differs (another
interpreter, a build without a global lock) arrays are asked through the buffer protocol instead.
"""

from __future__ import annotations

import ctypes
import sysconfig
from functools import cache

import numpy as np

TYPE, DATA, RANK, SHAPE, DTYPE, FLAGS = 8, 16, 24, 32, 56, 64  # bytes from the object's start
PLAIN = 0x0001 | 0x0100  # C-contiguous and aligned


@cache
def array_type() -> int:
    """The address of the type of arrays that can be read there; 0 where none can."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return 0
    array = np.zeros((3, 5), np.float32)
    start, size = id(array), array.__sizeof__() - array.nbytes
    if size < FLAGS + 4:
        return 0

    def word(at: int) -> int:
        return ctypes.c_uint64.from_address(start + at).value

    shape = [ctypes.c_int64.from_address(word(SHAPE) + 8 * axis).value for axis in range(2)]
    found = (
        word(TYPE) == id(np.ndarray),
        word(DATA) == array.ctypes.data,
        word(RANK) & 0xFFFFFFFF == 2,
        shape == [3, 5],
        word(DTYPE) == id(array.dtype),
        word(FLAGS) & PLAIN == PLAIN,
        ctypes.c_uint32.from_address(id(array[:, :2]) + FLAGS).value & PLAIN != PLAIN,
    )
    return id(np.ndarray) if all(found) else 0

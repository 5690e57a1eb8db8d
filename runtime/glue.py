"""Takes nothing, gives the LLVM text of the function that Python calls natively.

    call(x, t):   seize the frame -> take the arrays' buffers -> lock -> run the entry -> result

The function is a METH_FASTCALL method over a context: a table of 8-byte slots (Slot) that tells
what the entry wants. Whatever is unusual (other dtypes, shapes or strides, keywords, a failed
check, an empty batch) goes to a Python callable with the very same arguments, so values and errors
are those of the general way. Python's functions are reached through the table `nnc_api` (API), and
only those of the stable ABI are: nothing is assumed of any object's layout but that of Py_buffer,
and of an ndarray where it was found to be what NumPy documents (layout.py). The latter are read
where no other thread can change them meanwhile.
"""

from __future__ import annotations

import re
from enum import IntEnum

from runtime import layout

CALL, TABLE = "nnc_call", "nnc_api"


class Slot(IntEnum):
    """What stands where in a context."""

    BUSY = 0  # 1 while a call is in the frame
    ENTRY = 1
    BUFFERS = 2  # the three arguments of the entry
    SYMBOLS = 3
    TEAM = 4
    COUNT = 5  # how many arguments; -1 sends every call the general way
    VIEWS = 6  # room for COUNT + 1 Py_buffers
    PORTS = 7  # COUNT times a Port
    LOWEST = 8  # the extents of the symbol that the frame is laid out for
    HIGHEST = 9
    EXTENT = 10  # the extent that the general way has bound
    ACQUIRE = 11  # methods of a lock, or 0
    RELEASE = 12
    DETACH = 13  # whether other Python threads may run meanwhile
    KIND = 14  # how the result comes about: a Kind
    RESULT = 15  # its address or object
    FRESH = 16  # the buffer number of Kind.NEW
    GENERAL = 17  # called where the frame is ours, but the arguments are unusual
    BESIDE = 18  # called where another call is in the frame
    HITS = 19  # how many calls took the short way
    SIZE = 20


class Port(IntEnum):
    """What stands where in the description of one argument."""

    NUMBER = 0  # of its buffer
    HOME = 1  # the address that the general way has bound
    FORMAT = 2  # one character
    ITEMSIZE = 3
    RANK = 4
    SHAPE = 5  # address of RANK extents; -1 is the symbol
    ROOM = 6  # how many elements fit at HOME
    ALSO = 7  # another format, or 0, from which
    CAST = 8  # this Cast leads to HOME
    ALSO_2 = 9
    CAST_2 = 10
    TYPE = 11  # the address of the type of arrays that are read directly, or 0
    DTYPE = 12  # the address of their dtype
    SIZE = 13


class Cast(IntEnum):
    """Conversions that lose nothing but digits; what overflows goes the general way."""

    NONE = 0
    F64_F32 = 1
    F32_F64 = 2
    I32_I64 = 3
    U8_I64 = 4


class Kind(IntEnum):
    """How the result comes about."""

    FLOAT32 = 0  # a Python float of the number at RESULT
    FLOAT64 = 1
    OBJECT = 2  # RESULT itself
    AFTER = 3  # what RESULT() gives afterwards
    NEW = 4  # the array that RESULT() gives before; the entry writes into it


API = (
    "PyCapsule_GetPointer",
    "PyObject_GetBuffer",
    "PyBuffer_Release",
    "PyErr_Clear",
    "PyObject_Vectorcall",
    "PyObject_CallNoArgs",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyFloat_FromDouble",
    "Py_IncRef",
    "Py_DecRef",
)
VIEW = 80  # bytes of a Py_buffer where pointers have 8
_READ = 0x4 | 0x38  # PyBUF_FORMAT | PyBUF_C_CONTIGUOUS
_WRITE = 0x1  # PyBUF_WRITABLE

_RELEASE_ALL = """
define internal void @release_all(ptr %c, i64 %count) {
  [views = c.VIEWS] [ports = c.PORTS] [bufs = c.BUFFERS] [syms = c.SYMBOLS]
  [extent : c.EXTENT]
  store i64 %extent, ptr %syms
  br label %test
test:
  %i = phi i64 [ 0, %0 ], [ %next, %one ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %out
one:
  %view_at = mul i64 %i, $VIEW
  %view = getelementptr i8, ptr %views, i64 %view_at
  [release = api.PyBuffer_Release]
  call void %release(ptr %view)
  %port_at = mul i64 %i, $PORT
  %port = getelementptr i64, ptr %ports, i64 %port_at
  [number : port.NUMBER] [home = port.HOME]
  %slot = getelementptr ptr, ptr %bufs, i64 %number
  store ptr %home, ptr %slot
  %next = add i64 %i, 1
  br label %test
out:
  ret void
}
"""

# Whether n numbers could be converted.
_CAST = """
define internal i1 @cast(i64 %kind, ptr %from, ptr %to, i64 %n) {
  br label %test
test:
  %i = phi i64 [ 0, %0 ], [ %next, %good ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %done
one:
  %from8 = getelementptr i64, ptr %from, i64 %i
  %from4 = getelementptr i32, ptr %from, i64 %i
  %from1 = getelementptr i8, ptr %from, i64 %i
  %to8 = getelementptr i64, ptr %to, i64 %i
  %to4 = getelementptr i32, ptr %to, i64 %i
  switch i64 %kind, label %fail [
    i64 $F64_F32, label %f64_f32
    i64 $F32_F64, label %f32_f64
    i64 $I32_I64, label %i32_i64
    i64 $U8_I64, label %u8_i64
  ]
f64_f32:
  %double = load double, ptr %from8
  %rounded = fptrunc double %double to float
  store float %rounded, ptr %to4
  %size = call float @llvm.fabs.f32(float %rounded)
  %infinite = fcmp oeq float %size, 0x7FF0000000000000
  %back = fpext float %rounded to double
  %other = fcmp one double %back, %double
  %overflow = and i1 %infinite, %other
  br i1 %overflow, label %fail, label %good
f32_f64:
  %single = load float, ptr %from4
  %widened = fpext float %single to double
  store double %widened, ptr %to8
  br label %good
i32_i64:
  %int = load i32, ptr %from4
  %long = sext i32 %int to i64
  store i64 %long, ptr %to8
  br label %good
u8_i64:
  %byte = load i8, ptr %from1
  %number = zext i8 %byte to i64
  store i64 %number, ptr %to8
  br label %good
good:
  %next = add i64 %i, 1
  br label %test
done:
  ret i1 true
fail:
  ret i1 false
}
declare float @llvm.fabs.f32(float)
"""

# The symbol's extent so far (0: not known yet), or -1 where the object is not what is wanted.
_TAKE = """
define internal i64 @take(ptr %c, ptr %port, ptr %view, ptr %object, i64 %extent) {
  [array_type = port.TYPE] [own_dtype = port.DTYPE] [own_rank : port.RANK]
  [own_shape = port.SHAPE]
  %type_at = getelementptr i8, ptr %object, i64 $AT_TYPE
  %type = load ptr, ptr %type_at
  %is_array = icmp eq ptr %type, %array_type
  br i1 %is_array, label %array, label %ask
array:
  %dtype_at = getelementptr i8, ptr %object, i64 $AT_DTYPE
  %dtype = load ptr, ptr %dtype_at
  %flags_at = getelementptr i8, ptr %object, i64 $AT_FLAGS
  %flags = load i32, ptr %flags_at
  %plain = and i32 %flags, $PLAIN
  %nd_at = getelementptr i8, ptr %object, i64 $AT_RANK
  %nd = load i32, ptr %nd_at
  %array_rank = zext i32 %nd to i64
  %same_dtype = icmp eq ptr %dtype, %own_dtype
  %is_plain = icmp eq i32 %plain, $PLAIN
  %same_nd = icmp eq i64 %array_rank, %own_rank
  %fits_1 = and i1 %same_dtype, %is_plain
  %fits_2 = and i1 %fits_1, %same_nd
  br i1 %fits_2, label %direct, label %ask
direct:
  %array_data_at = getelementptr i8, ptr %object, i64 $AT_DATA
  %array_data = load ptr, ptr %array_data_at
  %array_shape_at = getelementptr i8, ptr %object, i64 $AT_SHAPE
  %array_shape = load ptr, ptr %array_shape_at
  %owner_at = getelementptr ptr, ptr %view, i64 1
  store ptr null, ptr %owner_at
  br label %axes
ask:
  [get = api.PyObject_GetBuffer]
  %failed = call i32 %get(ptr %object, ptr %view, i32 $READ)
  %got = icmp eq i32 %failed, 0
  br i1 %got, label %kind, label %clear
clear:
  [forget = api.PyErr_Clear]
  call void %forget()
  ret i64 -1
kind:
  %asked_data = load ptr, ptr %view
  [itemsize : view.3] [format = view.5] [asked_shape = view.6]
  %rank_at = getelementptr i8, ptr %view, i64 36
  %rank32 = load i32, ptr %rank_at
  %rank = zext i32 %rank32 to i64
  [wanted_size : port.ITEMSIZE] [wanted_format : port.FORMAT]
  %same_rank = icmp eq i64 %rank, %own_rank
  %address = ptrtoint ptr %asked_data to i64
  %mask = sub i64 %itemsize, 1
  %astray = and i64 %address, %mask
  %aligned = icmp eq i64 %astray, 0
  %named = icmp ne ptr %format, null
  %a = and i1 %same_rank, %aligned
  %b = and i1 %a, %named
  br i1 %b, label %letter, label %refuse
letter:
  %first8 = load i8, ptr %format
  %first = zext i8 %first8 to i64
  [also : port.ALSO] [also_cast : port.CAST] [also_2 : port.ALSO_2] [also_cast_2 : port.CAST_2]
  %same_letter = icmp eq i64 %first, %wanted_format
  %is_also = icmp eq i64 %first, %also
  %is_also_2 = icmp eq i64 %first, %also_2
  %cast_2 = select i1 %is_also_2, i64 %also_cast_2, i64 -1
  %cast_1 = select i1 %is_also, i64 %also_cast, i64 %cast_2
  %asked_cast = select i1 %same_letter, i64 $NONE, i64 %cast_1
  %as_wide = icmp eq i64 %itemsize, %wanted_size
  %size_fits = select i1 %same_letter, i1 %as_wide, i1 true
  %castable = icmp sge i64 %asked_cast, 0
  %letter_fits = and i1 %castable, %size_fits
  br i1 %letter_fits, label %ending, label %refuse
ending:
  %second_at = getelementptr i8, ptr %format, i64 1
  %second = load i8, ptr %second_at
  %ended = icmp eq i8 %second, 0
  br i1 %ended, label %axes, label %refuse
axes:
  %axis = phi i64 [ 0, %ending ], [ 0, %direct ], [ %next, %good ]
  %known = phi i64 [ %extent, %ending ], [ %extent, %direct ], [ %learned, %good ]
  %size = phi i64 [ 1, %ending ], [ 1, %direct ], [ %larger, %good ]
  %data = phi ptr [ %asked_data, %ending ], [ %array_data, %direct ], [ %data, %good ]
  %shape = phi ptr [ %asked_shape, %ending ], [ %array_shape, %direct ], [ %shape, %good ]
  %cast = phi i64 [ %asked_cast, %ending ], [ $NONE, %direct ], [ %cast, %good ]
  %more = icmp slt i64 %axis, %own_rank
  br i1 %more, label %axis_one, label %done
axis_one:
  %dim_at = getelementptr i64, ptr %shape, i64 %axis
  %dim = load i64, ptr %dim_at
  %wanted_at = getelementptr i64, ptr %own_shape, i64 %axis
  %wanted = load i64, ptr %wanted_at
  %symbolic = icmp eq i64 %wanted, -1
  %first_told = icmp eq i64 %known, 0
  %expected_symbol = select i1 %first_told, i64 %dim, i64 %known
  %expected = select i1 %symbolic, i64 %expected_symbol, i64 %wanted
  %learned = select i1 %symbolic, i64 %expected_symbol, i64 %known
  %same = icmp eq i64 %dim, %expected
  %some = icmp sgt i64 %dim, 0
  %fits = and i1 %same, %some
  br i1 %fits, label %good, label %refuse
good:
  %next = add i64 %axis, 1
  %larger = mul i64 %size, %dim
  br label %axes
done:
  [bufs = c.BUFFERS] [number : port.NUMBER] [home = port.HOME] [room : port.ROOM]
  %slot = getelementptr ptr, ptr %bufs, i64 %number
  %as_it_is = icmp eq i64 %cast, $NONE
  br i1 %as_it_is, label %there, label %elsewhere
there:
  store ptr %data, ptr %slot
  ret i64 %known
elsewhere:
  %spacious = icmp sle i64 %size, %room
  br i1 %spacious, label %convert, label %refuse
convert:
  %converted = call i1 @cast(i64 %cast, ptr %data, ptr %home, i64 %size)
  store ptr %home, ptr %slot
  br i1 %converted, label %at_home, label %refuse
at_home:
  ret i64 %known
refuse:
  [release = api.PyBuffer_Release]
  call void %release(ptr %view)
  ret i64 -1
}
"""

_CALL = """
define ptr @$CALL(ptr %self, ptr %args, i64 %nargs, ptr %names) {
  [pointer = api.PyCapsule_GetPointer]
  %c = call ptr %pointer(ptr %self, ptr null)
  %seized = cmpxchg ptr %c, i64 0, i64 1 acquire monotonic
  %free = extractvalue { i64, i1 } %seized, 1
  br i1 %free, label %owned, label %beside
owned:
  [count : c.COUNT] [views = c.VIEWS] [ports = c.PORTS] [bufs = c.BUFFERS] [syms = c.SYMBOLS]
  %as_many = icmp eq i64 %count, %nargs
  %unnamed = icmp eq ptr %names, null
  %usual = and i1 %as_many, %unnamed
  br i1 %usual, label %takes, label %general
takes:
  %i = phi i64 [ 0, %owned ], [ %next, %took ]
  %extent = phi i64 [ 0, %owned ], [ %told, %took ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %all
one:
  %view_at = mul i64 %i, $VIEW
  %view = getelementptr i8, ptr %views, i64 %view_at
  %port_at = mul i64 %i, $PORT
  %port = getelementptr i64, ptr %ports, i64 %port_at
  %object_at = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %object_at
  %told = call i64 @take(ptr %c, ptr %port, ptr %view, ptr %object, i64 %extent)
  %refused = icmp slt i64 %told, 0
  br i1 %refused, label %let_go, label %took
took:
  %next = add i64 %i, 1
  br label %takes
let_go:
  %taken = phi i64 [ %i, %one ], [ %count, %all ], [ %count, %wrong ]
  call void @release_all(ptr %c, i64 %taken)
  br label %general
all:
  [lowest : c.LOWEST] [highest : c.HIGHEST]
  %enough = icmp sge i64 %extent, %lowest
  %little = icmp sle i64 %extent, %highest
  %in_range = and i1 %enough, %little
  br i1 %in_range, label %result_first, label %let_go

result_first:
  [bound : c.EXTENT]
  %untold = icmp eq i64 %extent, 0
  %rows = select i1 %untold, i64 %bound, i64 %extent
  store i64 %rows, ptr %syms
  [kind : c.KIND] [result = c.RESULT]
  %is_new = icmp eq i64 %kind, $NEW
  br i1 %is_new, label %create, label %lock
create:
  [make = api.PyObject_CallNoArgs]
  %made = call ptr %make(ptr %result)
  %exists = icmp ne ptr %made, null
  br i1 %exists, label %look, label %failed
look:
  [get = api.PyObject_GetBuffer]
  %last_at = mul i64 %count, $VIEW
  %last = getelementptr i8, ptr %views, i64 %last_at
  %unseen = call i32 %get(ptr %made, ptr %last, i32 $WRITE)
  %seen = icmp eq i32 %unseen, 0
  br i1 %seen, label %place, label %drop_unseen
drop_unseen:
  [drop_made = api.Py_DecRef]
  call void %drop_made(ptr %made)
  br label %failed
place:
  %where = load ptr, ptr %last
  [fresh : c.FRESH]
  %fresh_at = getelementptr ptr, ptr %bufs, i64 %fresh
  store ptr %where, ptr %fresh_at
  [release_last = api.PyBuffer_Release]
  call void %release_last(ptr %last)
  br label %lock

lock:
  %array = phi ptr [ null, %result_first ], [ %made, %place ]
  [acquire = c.ACQUIRE]
  %locks = icmp ne ptr %acquire, null
  br i1 %locks, label %wait, label %enter
wait:
  [call_acquire = api.PyObject_CallNoArgs] [drop_true = api.Py_DecRef]
  %answer = call ptr %call_acquire(ptr %acquire)
  call void %drop_true(ptr %answer)
  %acquired = icmp ne ptr %answer, null
  br i1 %acquired, label %enter, label %interrupted
interrupted:
  [drop_array = api.Py_DecRef]
  call void %drop_array(ptr %array)
  br label %failed

enter:
  [entry = c.ENTRY] [team = c.TEAM] [detach : c.DETACH]
  %detaches = icmp ne i64 %detach, 0
  br i1 %detaches, label %detached, label %attached
attached:
  %code_attached = call i64 %entry(ptr %bufs, ptr %syms, ptr %team)
  br label %entered
detached:
  [save = api.PyEval_SaveThread] [restore = api.PyEval_RestoreThread]
  %state = call ptr %save()
  %code_detached = call i64 %entry(ptr %bufs, ptr %syms, ptr %team)
  call void %restore(ptr %state)
  br label %entered
entered:
  %code = phi i64 [ %code_attached, %attached ], [ %code_detached, %detached ]
  br i1 %locks, label %unlock, label %unlocked
unlock:
  [release = c.RELEASE] [call_release = api.PyObject_CallNoArgs] [drop_none = api.Py_DecRef]
  %none = call ptr %call_release(ptr %release)
  call void %drop_none(ptr %none)
  br label %unlocked
unlocked:
  %right = icmp eq i64 %code, 0
  br i1 %right, label %finish, label %wrong
wrong:
  [drop_unused = api.Py_DecRef]
  call void %drop_unused(ptr %array)
  br label %let_go

finish:
  call void @release_all(ptr %c, i64 %count)
  [hits : c.HITS]
  %hits_now = add i64 %hits, 1
  store i64 %hits_now, ptr %hits.at
  switch i64 %kind, label %leave [
    i64 $FLOAT32, label %float32
    i64 $FLOAT64, label %float64
    i64 $OBJECT, label %object_itself
    i64 $AFTER, label %after
  ]
float32:
  %single = load float, ptr %result
  %widened = fpext float %single to double
  br label %number
float64:
  %double = load double, ptr %result
  br label %number
number:
  %value = phi double [ %widened, %float32 ], [ %double, %float64 ]
  [box = api.PyFloat_FromDouble]
  %boxed = call ptr %box(double %value)
  br label %leave
object_itself:
  [keep = api.Py_IncRef]
  call void %keep(ptr %result)
  br label %leave
after:
  [collect = api.PyObject_CallNoArgs]
  %collected = call ptr %collect(ptr %result)
  br label %leave
leave:
  %answer_object = phi ptr [ %array, %finish ], [ %boxed, %number ], [ %result, %object_itself ],
    [ %collected, %after ]
  store atomic i64 0, ptr %c release, align 8
  ret ptr %answer_object

failed:
  call void @release_all(ptr %c, i64 %count)
  store atomic i64 0, ptr %c release, align 8
  ret ptr null
general:
  [general_way = c.GENERAL] [call_general = api.PyObject_Vectorcall]
  %found = call ptr %call_general(ptr %general_way, ptr %args, i64 %nargs, ptr %names)
  store atomic i64 0, ptr %c release, align 8
  ret ptr %found
beside:
  [other_way = c.BESIDE] [call_other = api.PyObject_Vectorcall]
  %other = call ptr %call_other(ptr %other_way, ptr %args, i64 %nargs, ptr %names)
  ret ptr %other
}
"""

_FIELDS = ("TYPE", "DATA", "RANK", "SHAPE", "DTYPE", "FLAGS")
_TABLES = {"c": Slot, "port": Port}
_LOAD = re.compile(r"\[(\w+) ([=:]) (\w+)\.(\w+)\]")
_NUMBER = re.compile(r"\$(\w+)")


def text() -> str:
    """The module.

    [a = c.ENTRY] loads a pointer from a slot, [n : c.COUNT] a number; $NAME is a constant.
    """
    numbers: dict[str, int | str] = {item.name: item.value for item in (*Kind, *Cast)}
    numbers |= {f"AT_{name}": getattr(layout, name) for name in _FIELDS} | {"PLAIN": layout.PLAIN}
    numbers |= {"VIEW": VIEW, "PORT": Port.SIZE.value, "READ": _READ, "WRITE": _WRITE, "CALL": CALL}
    table = f"@{TABLE} = global [{len(API)} x ptr] zeroinitializer\n"
    body = _NUMBER.sub(lambda m: str(numbers[m[1]]), _RELEASE_ALL + _CAST + _TAKE + _CALL)
    return table + _LOAD.sub(_expand, body)


def _expand(found: re.Match[str]) -> str:
    name, kind, base, member = found.groups()
    root = f"@{TABLE}" if base == "api" else f"%{base}"
    where = f"getelementptr ptr, ptr {root}, i64 {_index(base, member)}"
    loaded = f"load {'ptr' if kind == '=' else 'i64'}, ptr %{name}.at"
    return f"%{name}.at = {where}\n  %{name} = {loaded}\n "


def _index(base: str, member: str) -> int:
    if member.isdigit():
        return int(member)
    if base == "api":
        return API.index(member)
    return int(_TABLES[base][member])

"""Short vectors of float32 for compiled kernels.

LLVM cannot know that the arrays of a kernel do not overlap, so it leaves loops over a few channels scalar. Here the
vectors are written down: they live in registers, and LLVM splits them into what the processor has.

Numba's cache on disk knows the file of a kernel, not this one: after a change here, touch the files of the kernels.

A kernel takes `lanes`, a tuple of as many numbers as a vector has (2, 4, 8, ..): its type, not its values, is what
counts. Arrays of vectors are C-contiguous, (rows, lanes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)


class Vector(types.Type):
    """Numba's type of a vector."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_FLOAT, vector.lanes))


@intrinsic  # type: ignore[untyped-decorator]
def load(context: Any, values: Any, row: Any, lanes: Any) -> Any:
    """Read values[row]."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments, vector), align=4)

    return vector(values, row, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, values: Any, row: Any, vector: Any) -> Any:
    """Write values[row]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature, arguments, vector), align=4)
        return context.get_dummy_value()

    return types.void(values, row, vector), generate


def _address(context: Any, builder: Any, signature: Any, arguments: Any, vector: Vector) -> Any:
    array, row = signature.args[:2]
    index = context.cast(builder, arguments[1], row, types.int64)
    data = context.make_array(array)(context, builder, arguments[0]).data
    place = builder.gep(data, [builder.mul(index, ir.Constant(ir.IntType(64), vector.lanes))])
    return builder.bitcast(place, ir.VectorType(_FLOAT, vector.lanes).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def fill(context: Any, number: Any, lanes: Any) -> Any:
    """Make a vector with a number in all lanes."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], types.float32)
        return _everywhere(builder, value, vector.lanes)

    return vector(number, lanes), generate


def _everywhere(builder: Any, value: Any, lanes: int) -> Any:
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes))


def _constant(kind: Any, value: float, lanes: int) -> Any:
    return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fmuladd.v{a.type.count}f32"
    found = builder.module.globals.get(name)
    return builder.call(found or ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name), [a, b, c])


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _operation(name: str, doc: str, make: Callable[..., Any], count: int) -> Any:
    """Make an operation on `count` vectors that gives a vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return make(builder, *arguments)

    def one(context: Any, a: Any) -> Any:
        return a(a), generate

    def two(context: Any, a: Any, b: Any) -> Any:
        return a(a, b), generate

    def three(context: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, b, c), generate

    function = (one, two, three)[count - 1]
    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


def _exp(builder: Any, x: Any) -> Any:
    lanes = x.type.count

    def number(value: float) -> Any:
        return _constant(_FLOAT, value, lanes)

    least = number(-87.0)
    inside = _larger(builder, x, least)
    # exp(x) = 2^n exp(r) with |r| <= ln(2) / 2; adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    shift = number(1.5 * 2**23)
    rounded = _multiply_add(builder, inside, number(1 / math.log(2)), shift)
    n = builder.fsub(rounded, shift)
    # ln(2) in two parts: the first has few bits, so that n times it is exact.
    high = 0.693359375
    r = _multiply_add(builder, n, number(-high), inside)
    r = _multiply_add(builder, n, number(high - math.log(2)), r)
    series = number(1 / math.factorial(7))
    for k in range(6, -1, -1):
        series = _multiply_add(builder, series, r, number(1 / math.factorial(k)))
    whole = ir.VectorType(_INT, lanes)
    bits = builder.add(builder.bitcast(rounded, whole), _constant(_INT, 127, lanes))
    power = builder.bitcast(builder.shl(bits, _constant(_INT, 23, lanes)), x.type)
    return builder.select(builder.fcmp_ordered(">", x, least), builder.fmul(series, power), number(0.0))


add = _operation("add", "Return a + b.", lambda builder, a, b: builder.fadd(a, b), 2)
multiply = _operation("multiply", "Return a * b.", lambda builder, a, b: builder.fmul(a, b), 2)
multiply_add = _operation("multiply_add", "Return a * b + c.", _multiply_add, 3)
larger = _operation("larger", "Return the larger of a and b.", _larger, 2)
exp = _operation("exp", "Return exp(a) for a <= 0, within 2e-7 of it; 0 where a <= -87.", _exp, 1)


def _reduction(name: str, doc: str, combine: Callable[..., Any]) -> Any:
    """Make an operation on a vector that gives one number."""

    def function(context: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (vector,) = arguments
            size = a.lanes
            while size > 1:
                size //= 2
                low, high = (ir.Constant(ir.VectorType(_INT, size), list(range(i, i + size))) for i in (0, size))
                vector = combine(
                    builder, builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high)
                )
            return builder.extract_element(vector, ir.Constant(_INT, 0))

        return types.float32(a), generate

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


total = _reduction("total", "Return the sum of the lanes.", lambda b, x, y: b.fadd(x, y))
largest = _reduction("largest", "Return the largest lane.", _larger)

"""Products with whole vectors of lanes, which LLVM would not vectorise by itself."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# Walks side by side in a tile: one vector of float32.
LANES = 16
# Vectors that `add_product` keeps in registers at a time.
STRIP = 4


def _splat(builder: Any, number: Any) -> Any:
    """A vector with the same number in every lane."""
    kind = ir.VectorType(number.type, LANES)
    empty = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(empty, number, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, empty, zeros)


@intrinsic
def _add_product(
    typing: Any, F: Any, H: Any, which: Any, D: Any, count: Any, scale: Any
) -> Any:
    """``F[p] += scale[p] * sum_k H[which[k], p] * D[k]`` for every p and k < count.

    float32: F and scale [width, LANES], H [., width], width a multiple of STRIP, D
    [., LANES]; which int64; scale may be None. All arrays are C-contiguous. As H is
    symmetric, a strip of F needs the same few cache lines of all the rows.
    """
    signature = types.void(F, H, which, D, count, scale)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)
        kinds = signature.args

        def data(at: int, kind: Any) -> Any:
            array = context.make_array(kinds[at])(context, builder, arguments[at])
            return builder.bitcast(array.data, kind.as_pointer())

        shape = context.make_array(kinds[0])(context, builder, arguments[0]).shape
        width = builder.extract_value(shape, 0)
        fields, steps = data(0, vector), data(3, vector)
        matrix, rows = data(1, ir.FloatType()), data(2, ir.IntType(64))
        scaled = not isinstance(kinds[5], types.NoneType)
        fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fma.v{LANES}f32",
        )
        sums = [cgutils.alloca_once(builder, vector) for _ in range(STRIP)]
        one = width.type(1)
        for_strips = cgutils.for_range_slice(
            builder, width.type(0), width, width.type(STRIP)
        )
        with for_strips as (p, _):
            places = [builder.add(p, width.type(k)) for k in range(STRIP)]
            for k in range(STRIP):
                before = builder.load(builder.gep(fields, [places[k]]), align=4)
                builder.store(
                    ir.Constant(vector, [0.0] * LANES) if scaled else before, sums[k]
                )
            with cgutils.for_range_slice(builder, width.type(0), arguments[4], one) as (
                j,
                _,
            ):
                step = builder.load(builder.gep(steps, [j]), align=4)
                row = builder.mul(builder.load(builder.gep(rows, [j])), width)
                for k in range(STRIP):
                    entry = builder.load(
                        builder.gep(matrix, [builder.add(row, places[k])])
                    )
                    more = builder.call(
                        fma, [_splat(builder, entry), step, builder.load(sums[k])]
                    )
                    builder.store(more, sums[k])
            for k in range(STRIP):
                place = builder.gep(fields, [places[k]])
                total = builder.load(sums[k])
                if scaled:
                    factor = builder.load(
                        builder.gep(data(5, vector), [places[k]]), align=4
                    )
                    before = builder.load(place, align=4)
                    total = builder.call(fma, [factor, total, before])
                builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


# Untyped: the type checker would ask for the compiler's argument of an intrinsic, too.
add_product: Any = _add_product

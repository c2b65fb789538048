# mypy: ignore-missing-imports, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
# mypy: allow-untyped-decorators
"""The Triton kernels of `triton_kernels.py`, which launches them.

Arguments without a type annotation are pointers to GPU memory, followed by scalars. Arguments
marked `tl.constexpr` are compiled in; each of them takes few distinct values across decoders.

All sizes except `clips` are multiples of the tile's. Rows beyond the last clip recompute the last
clip, which is as cheap as a mask, and are not stored.
"""

import triton
import triton.language as tl

from nsynth_super.wavenet import dimensions, mulaw, rewrites, stepping

# Triton kernels can only read globals of type `tl.constexpr`.
_TAPS = tl.constexpr(dimensions.TAPS)
_CODES = tl.constexpr(dimensions.CODES)
_INPUTS = tl.constexpr(rewrites.INPUTS)
_FIRST = tl.constexpr(rewrites.FIRST)
_ZERO = tl.constexpr(mulaw.ZERO)
_DRAWN = tl.constexpr(stepping.DRAWN)

KEPT = 8
"""Slots in the ring buffer of inputs: a power of two, as for all tiles, above `rewrites.INPUTS`."""
_KEPT = tl.constexpr(KEPT)


@triton.jit
def _at(ring, slots, time, age, clips, width: tl.constexpr):
    """Return the pointer to the input of `age` samples ago in a ring `[slots, clips, width]`.

    The time has 64 bits and so has the offset: a ring of 1,025 slots for 8,064 clips exceeds 2^31
    elements. `slots` is added because Triton's remainder of a negative number is negative.
    """
    return ring + (time - age + slots) % slots * clips * width


@triton.jit
def _gated(a, b):
    """Return (1 + tanh a) tanh b with three slow instructions: two exponentials and a division.

    The exponential of b cannot overflow. That of a can; it occurs only in the denominator, so the
    result is 0.
    """
    e = tl.exp(-2.0 * tl.abs(b))
    z = 2.0 * (1.0 - e) / ((1.0 + tl.exp(-2.0 * a)) * (1.0 + e))
    return tl.where(b < 0, -z, z)


@triton.jit(do_not_specialize=["clips"])
def begin(
    codes,  # int64 [clips]
    inputs,  # float32 [KEPT, clips], a ring buffer
    side,  # [clips, side_columns]
    l_start,  # [clips, width]
    s,  # float32 [clips, skip_width]
    start,  # float32 [TAPS + 1, width + skip_width]
    clock,  # int64 [2]: the time, and the steps taken
    clips,
    width: tl.constexpr,
    skip_width: tl.constexpr,
    side_columns: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Push the previous codes: write the first layer's side columns, and the initial l and s."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    here = row < clips
    time = tl.load(clock)
    x = (tl.load(codes + row, mask=here, other=_ZERO) - _ZERO).to(tl.float32) / _ZERO
    before = tl.load(_at(inputs, _KEPT, time, 1, clips, 1) + row, mask=here, other=0.0)
    oldest = tl.load(_at(inputs, _KEPT, time, 2, clips, 1) + row, mask=here, other=0.0)

    first = tl.program_id(1) * columns
    column = first + tl.arange(0, columns)
    total: tl.constexpr = width + skip_width
    out = oldest[:, None] * tl.load(start + column)[None, :]
    out += before[:, None] * tl.load(start + total + column)[None, :]
    out += x[:, None] * tl.load(start + 2 * total + column)[None, :]
    out += tl.load(start + _TAPS * total + column)[None, :]
    if first < width:
        l_at = l_start + row[:, None] * width + column[None, :]
        tl.store(l_at, out.to(l_start.dtype.element_ty), mask=here[:, None])
    else:
        s_at = s + row[:, None] * skip_width + column[None, :] - width
        tl.store(s_at, out, mask=here[:, None])

    if first == 0:
        # The ring has spare slots, so this does not overwrite an input that another program reads.
        tl.store(_at(inputs, _KEPT, time, 0, clips, 1) + row, x, mask=here)
        place = tl.arange(0, _FIRST)[None, :]
        age = tl.maximum(-place + (_INPUTS - 1), 0)
        past = tl.load(
            _at(inputs, _KEPT, time, age, clips, 1) + row[:, None],
            mask=here[:, None] & (place < _INPUTS - 1),
            other=0.0,
        )
        x_or_past = tl.where(place == _INPUTS - 1, x[:, None], past)
        is_past_the_start = (tl.load(clock + 1) + place >= _FIRST - 1).to(tl.float32)
        beside = tl.where(place < _INPUTS, x_or_past, is_past_the_start)
        to = side + row[:, None] * side_columns + place
        tl.store(to, beside.to(side.dtype.element_ty), mask=here[:, None])


@triton.jit(do_not_specialize=["clips", "slots"])
def gate(
    z,  # [clips, width]
    ring,  # [slots, clips, width]
    side,  # [clips, side_columns]
    weights,  # [taps width + side_columns, 2 width]
    clock,
    clips,
    slots,
    taps: tl.constexpr,  # 0 for the first layer, whose inputs are side columns
    width: tl.constexpr,
    side_columns: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Write z = (1 + tanh a) tanh b, where [a | b] = [l(t - 2d) | l(t - d) | l(t) | side] weights.

    A single loop over taps and side columns keeps the software pipeline full. Corresponding tiles
    of a and b share the loads of the taps.
    """
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    half: tl.constexpr = columns // 2
    column = tl.program_id(1) * half + tl.arange(0, half)
    k = tl.arange(0, inner)
    time = tl.load(clock)
    dilation = slots // 2
    oldest = _at(ring, slots, time, 2 * dilation, clips, width)
    middle = _at(ring, slots, time, dilation, clips, width)
    newest = _at(ring, slots, time, 0, clips, width)

    per_tap: tl.constexpr = width // inner
    of_taps: tl.constexpr = taps * per_tap
    last = tl.minimum(row, clips - 1)[:, None]
    w = weights + k[:, None] * (2 * width) + column[None, :]
    a = tl.zeros((rows, half), tl.float32)
    b = tl.zeros((rows, half), tl.float32)
    for i in range(of_taps + side_columns // inner):
        tap = i // per_tap
        source = tl.where(tap == 0, oldest, tl.where(tap == 1, middle, newest))
        source = tl.where(i < of_taps, source, side)
        stride = tl.where(i < of_taps, width, side_columns)
        begin_k = tl.where(i < of_taps, i - tap * per_tap, i - of_taps) * inner
        x = tl.load(source + last * stride + begin_k + k[None, :])
        a = tl.dot(x, tl.load(w), a, input_precision="ieee")
        b = tl.dot(x, tl.load(w + width), b, input_precision="ieee")
        w += inner * 2 * width
    at = z + row[:, None] * width + column[None, :]
    tl.store(at, _gated(a, b).to(z.dtype.element_ty), mask=row[:, None] < clips)


@triton.jit(do_not_specialize=["clips", "slots", "next_slots"])
def add(
    z,  # [clips, width]
    weights,  # [width, res_width + skip_width]
    bias,  # float32 [res_width + skip_width]
    ring,  # [slots, clips, width], of this layer
    next_ring,  # [next_slots, clips, width], of the next layer
    s,  # float32 [clips, skip_width]
    clock,
    clips,
    slots,
    next_slots,
    width: tl.constexpr,
    res_width: tl.constexpr,  # 0 for the last layer
    skip_width: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Add the layer's output to l, the next layer's input, and to s.

    The next layer's ring has one slot more than its 2d past inputs: with 2d slots, this kernel
    would overwrite l(t - 2d) before `gate` reads it.
    """
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    first = tl.program_id(1) * columns
    column = first + tl.arange(0, columns)
    k = tl.arange(0, inner)
    x = z + tl.minimum(row, clips - 1)[:, None] * width + k[None, :]
    w = weights + k[:, None] * (res_width + skip_width) + column[None, :]
    out = tl.zeros((rows, columns), tl.float32)
    for _ in range(width // inner):
        out = tl.dot(tl.load(x), tl.load(w), out, input_precision="ieee")
        x += inner
        w += inner * (res_width + skip_width)
    out += tl.load(bias + column)[None, :]

    here = row[:, None] < clips
    if first < res_width:
        time = tl.load(clock)
        at = row[:, None] * width + column[None, :]
        l = tl.load(_at(ring, slots, time, 0, clips, width) + at, mask=here, other=0.0)  # noqa: E741
        to = _at(next_ring, next_slots, time, 0, clips, width) + at
        tl.store(to, (out + l).to(next_ring.dtype.element_ty), mask=here)
    else:
        s_at = s + row[:, None] * skip_width + column[None, :] - res_width
        tl.store(s_at, tl.load(s_at, mask=here, other=0.0) + out, mask=here)


@triton.jit(do_not_specialize=["clips"])
def head(
    h,  # float32 [clips, skip_width]
    s,  # float32 [clips, skip_width]
    weights,  # float32 [skip_width, skip_width]
    bias,  # float32 [clips, skip_width], including each clip's conditioning
    clips,
    skip_width: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Write relu(relu(s) weights + bias)."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    k = tl.arange(0, inner)
    x = s + tl.minimum(row, clips - 1)[:, None] * skip_width + k[None, :]
    w = weights + k[:, None] * skip_width + column[None, :]
    out = tl.zeros((rows, columns), tl.float32)
    for _ in range(skip_width // inner):
        out = tl.dot(tl.maximum(tl.load(x), 0.0), tl.load(w), out, input_precision="ieee")
        x += inner
        w += inner * skip_width
    here = row[:, None] < clips
    at = row[:, None] * skip_width + column[None, :]
    out += tl.load(bias + at, mask=here, other=0.0)
    tl.store(h + at, tl.maximum(out, 0.0), mask=here)


@triton.jit
def _logits(
    h,
    weights,  # float32 [skip_width, CODES]
    bias,  # float32 [CODES]
    row,
    clips,
    skip_width: tl.constexpr,
    rows: tl.constexpr,
    inner: tl.constexpr,
):
    """Return the logits of a tile's rows."""
    code = tl.arange(0, _CODES)
    k = tl.arange(0, inner)
    x = h + tl.minimum(row, clips - 1)[:, None] * skip_width + k[None, :]
    w = weights + k[:, None] * _CODES + code[None, :]
    out = tl.zeros((rows, _CODES), tl.float32)
    for _ in range(skip_width // inner):
        out = tl.dot(tl.load(x), tl.load(w), out, input_precision="ieee")
        x += inner
        w += inner * _CODES
    return out + tl.load(bias + code)[None, :]


@triton.jit
def _tick(clock):
    """Advance the clock. Only the last kernel of a step calls this; it does not read the time."""
    if tl.program_id(0) == 0:
        tl.store(clock, tl.load(clock) + 1)
        tl.store(clock + 1, tl.load(clock + 1) + 1)


@triton.jit(do_not_specialize=["clips"])
def logits(
    out,  # float32 [clips, CODES]
    h,
    weights,
    bias,
    clock,
    clips,
    skip_width: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,  # CODES
    inner: tl.constexpr,
):
    """Write the logits of the next code and end the step."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    at = out + row[:, None] * _CODES + tl.arange(0, _CODES)[None, :]
    value = _logits(h, weights, bias, row, clips, skip_width, rows, inner)
    tl.store(at, value, mask=row[:, None] < clips)
    _tick(clock)


@triton.jit(do_not_specialize=["clips", "step"])
def draw(
    code,  # int64 [clips], input of the next step
    codes,  # uint8 [times, clips]
    uniform,  # float32 [times, clips]
    forced,  # int64 [times, clips]
    h,
    weights,
    bias,
    clock,
    clips,
    step,  # the row of `codes`, `uniform` and `forced`
    skip_width: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,  # CODES
    inner: tl.constexpr,
):
    """Sample the next code as `sampling.draw` does, or take the forced one, and end the step."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    here = row < clips
    value = _logits(h, weights, bias, row, clips, skip_width, rows, inner)
    mass = tl.exp(value - tl.max(value, axis=1)[:, None])
    cumulative = tl.cumsum(mass, axis=1)
    # The last cumulative sum is the total: a sum in another order could be larger and yield 256.
    is_last = (tl.arange(0, _CODES) == _CODES - 1)[None, :]
    total = tl.sum(tl.where(is_last, cumulative, 0.0), axis=1)
    at = step * clips + row
    threshold = tl.load(uniform + at, mask=here, other=0.5) * total
    drawn = tl.sum((cumulative < threshold[:, None]).to(tl.int32), axis=1)
    ordered = tl.load(forced + at, mask=here, other=_DRAWN)
    chosen = tl.where(ordered == _DRAWN, drawn, ordered)
    tl.store(code + row, chosen, mask=here)
    tl.store(codes + at, chosen.to(tl.uint8), mask=here)
    _tick(clock)

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

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # Triton before 3.4
    EARLY = False
else:
    EARLY = True
"""Whether a kernel can be compiled to start before the previous one has ended."""

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
def _at(inputs, time, age, clips):
    """Return the pointer to the inputs of `age` samples ago in their ring `[KEPT, clips]`.

    `KEPT` is added because Triton's remainder of a negative number is negative.
    """
    return inputs + (time - age + _KEPT) % _KEPT * clips


@triton.jit
def _wait(early: tl.constexpr):
    """Wait for the previous kernel, if it may let this one start early.

    Every kernel waits before it reads or writes what another one writes or reads. A kernel thereby
    also waits for all earlier ones.
    """
    if early:
        gdc_wait()


@triton.jit
def _release(early: tl.constexpr):
    """Let the next kernel start once all programs are here: it computes addresses until its wait.

    Called after the products: the next kernel's programs would compete with them.
    """
    if early:
        gdc_launch_dependents()


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
    slots,  # int64 [layers, 2]: each ring's slots and its dilation
    taps,  # int64 [layers, 4]: the slots of this step's inputs, the oldest first
    clock,  # int64 [2]: the time, and the steps taken
    clips,
    layers: tl.constexpr,
    width: tl.constexpr,
    skip_width: tl.constexpr,
    side_columns: tl.constexpr,
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Push the previous codes: write the first layer's side columns, and the initial l and s.

    Also write the slots of all layers' inputs: 64-bit divisions would slow each of their kernels.
    A slot has 64 bits and so has its offset: a ring of 1,025 slots for 8,064 clips exceeds 2^31
    elements.
    """
    _wait(early)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    here = row < clips
    time = tl.load(clock)
    x = (tl.load(codes + row, mask=here, other=_ZERO) - _ZERO).to(tl.float32) / _ZERO
    before = tl.load(_at(inputs, time, 1, clips) + row, mask=here, other=0.0)
    oldest = tl.load(_at(inputs, time, 2, clips) + row, mask=here, other=0.0)

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

    if tl.program_id(0) + first == 0:
        layer = tl.arange(0, layers)[:, None]
        age = _TAPS - 1 - tl.arange(0, 4)[None, :]
        ring_slots = tl.load(slots + 2 * layer)
        past = time - age * tl.load(slots + 2 * layer + 1)
        tl.store(taps + 4 * layer + tl.arange(0, 4)[None, :], (past + ring_slots) % ring_slots)

    if first == 0:
        # The ring has spare slots, so this does not overwrite an input that another program reads.
        tl.store(_at(inputs, time, 0, clips) + row, x, mask=here)
        place = tl.arange(0, _FIRST)[None, :]
        age = tl.maximum(-place + (_INPUTS - 1), 0)
        earlier = tl.load(
            _at(inputs, time, age, clips) + row[:, None],
            mask=here[:, None] & (place < _INPUTS - 1),
            other=0.0,
        )
        x_or_past = tl.where(place == _INPUTS - 1, x[:, None], earlier)
        is_past_the_start = (tl.load(clock + 1) + place >= _FIRST - 1).to(tl.float32)
        beside = tl.where(place < _INPUTS, x_or_past, is_past_the_start)
        to = side + row[:, None] * side_columns + place
        tl.store(to, beside.to(side.dtype.element_ty), mask=here[:, None])


@triton.jit(do_not_specialize=["clips"])
def past(
    d,  # float32 [layers - 1, clips, 2 width]
    rings,  # every ring, one after the other
    starts,  # int64 [layers]: where each ring starts
    side,  # [clips, side_columns]
    weights,  # [layers - 1, 2 width / columns, 2 width + side_columns, columns]
    taps,  # int64 [layers, 4]
    clips,
    width: tl.constexpr,
    side_columns: tl.constexpr,
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Write what the past taps and the side columns contribute to d, for all layers but the first.

    These contributions are known before the first layer. With few clips, one kernel for all layers
    occupies the whole GPU, and each `gate` has only a third of the products left.
    """
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    layer = tl.program_id(2) + 1
    k = tl.arange(0, inner)
    last = tl.minimum(row, clips - 1)[:, None]
    per_tap: tl.constexpr = width // inner
    total: tl.constexpr = (_TAPS - 1) * width + side_columns
    w = weights + (layer - 1).to(tl.int64) * (total * 2 * width)
    w += tl.program_id(1) * (total * columns)
    w += k[:, None] * columns + tl.arange(0, columns)[None, :]
    _wait(early)
    ring = rings + tl.load(starts + layer)
    oldest = ring + tl.load(taps + 4 * layer) * clips * width
    middle = ring + tl.load(taps + 4 * layer + 1) * clips * width
    out = tl.zeros((rows, columns), tl.float32)
    for i in range(2 * per_tap + side_columns // inner):
        is_side = i >= 2 * per_tap
        source = tl.where(is_side, side, tl.where(i < per_tap, oldest, middle))
        stride = tl.where(is_side, side_columns, width)
        begin_k = tl.where(is_side, i - 2 * per_tap, i % per_tap) * inner
        x = tl.load(source + last * stride + begin_k + k[None, :])
        out = tl.dot(x, tl.load(w), out, input_precision="ieee")
        w += inner * columns
    _release(early)
    at = ((layer - 1).to(tl.int64) * clips + row[:, None]) * (2 * width) + column[None, :]
    tl.store(d + at, out, mask=row[:, None] < clips)


@triton.jit(do_not_specialize=["clips"])
def gate(
    z,  # [clips, width]
    ring,  # [slots, clips, width]
    side,  # [clips, side_columns]
    weights,  # [2 width / columns, taps width + side_columns, columns]
    d,  # float32 [clips, 2 width], what `past` has written; unused if taps is not 1
    at_taps,  # int64 [4], of this layer
    clips,
    taps: tl.constexpr,  # 0 for the first layer, whose inputs are side columns; 1 after `past`
    width: tl.constexpr,
    side_columns: tl.constexpr,
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Write z = (1 + tanh a) tanh b, where [a | b] = [l(t - 2d) | l(t - d) | l(t) | side] weights.

    The columns of a and b alternate, so that a program has both parts of each z. A single loop over
    taps and side columns keeps the software pipeline full.
    """
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    half: tl.constexpr = columns // 2
    k = tl.arange(0, inner)
    last = tl.minimum(row, clips - 1)[:, None]
    total: tl.constexpr = taps * width + (0 if taps == 1 else side_columns)
    w = weights + tl.program_id(1) * (total * columns)
    w += k[:, None] * columns + tl.arange(0, columns)[None, :]
    _wait(early)
    newest = ring + tl.load(at_taps + 2) * clips * width
    if taps == 1:
        column = tl.program_id(1) * columns + tl.arange(0, columns)
        out = tl.load(d + last * (2 * width) + column[None, :])
        x = newest + last * width + k[None, :]
        for _ in range(width // inner):
            out = tl.dot(tl.load(x), tl.load(w), out, input_precision="ieee")
            x += inner
            w += inner * columns
    else:
        oldest = ring + tl.load(at_taps) * clips * width
        middle = ring + tl.load(at_taps + 1) * clips * width
        per_tap: tl.constexpr = width // inner
        of_taps: tl.constexpr = taps * per_tap
        out = tl.zeros((rows, columns), tl.float32)
        for i in range(of_taps + side_columns // inner):
            tap = i // per_tap
            source = tl.where(tap == 0, oldest, tl.where(tap == 1, middle, newest))
            source = tl.where(i < of_taps, source, side)
            stride = tl.where(i < of_taps, width, side_columns)
            begin_k = tl.where(i < of_taps, i - tap * per_tap, i - of_taps) * inner
            piece = tl.load(source + last * stride + begin_k + k[None, :])
            out = tl.dot(piece, tl.load(w), out, input_precision="ieee")
            w += inner * columns
    _release(early)
    a, b = tl.split(tl.reshape(out, (rows, half, 2)))
    column_z = tl.program_id(1) * half + tl.arange(0, half)
    at = row[:, None] * width + column_z[None, :]
    tl.store(z + at, _gated(a, b).to(z.dtype.element_ty), mask=row[:, None] < clips)


@triton.jit(do_not_specialize=["clips"])
def add(
    z,  # [clips, width]
    weights,  # [(res_width + skip_width) / columns, width, columns]
    bias,  # float32 [res_width + skip_width]
    ring,  # [slots, clips, width], of this layer
    next_ring,  # [slots, clips, width], of the next layer
    s,  # float32 [clips, skip_width]
    at_taps,  # int64 [4], of this layer
    next_at_taps,  # int64 [4], of the next layer
    clips,
    width: tl.constexpr,
    res_width: tl.constexpr,  # 0 for the last layer
    skip_width: tl.constexpr,
    early: tl.constexpr,
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
    w = weights + tl.program_id(1) * (width * columns)
    w += k[:, None] * columns + tl.arange(0, columns)[None, :]
    _wait(early)
    newest = tl.load(at_taps + 2) * clips * width
    next_newest = tl.load(next_at_taps + 2) * clips * width
    out = tl.zeros((rows, columns), tl.float32)
    for _ in range(width // inner):
        out = tl.dot(tl.load(x), tl.load(w), out, input_precision="ieee")
        x += inner
        w += inner * columns
    _release(early)
    out += tl.load(bias + column)[None, :]

    here = row[:, None] < clips
    if first < res_width:
        at = row[:, None] * width + column[None, :]
        l = tl.load(ring + newest + at, mask=here, other=0.0)  # noqa: E741
        tl.store(next_ring + next_newest + at, (out + l).to(next_ring.dtype.element_ty), mask=here)
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
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    inner: tl.constexpr,
):
    """Write relu(relu(s) weights + bias)."""
    _wait(early)
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
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,  # CODES
    inner: tl.constexpr,
):
    """Write the logits of the next code and end the step."""
    _wait(early)
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
    early: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,  # CODES
    inner: tl.constexpr,
):
    """Sample the next code as `sampling.draw` does, or take the forced one, and end the step."""
    _wait(early)
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

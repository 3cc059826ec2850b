"""Where samples lie and what they weigh: read as they are, or made from a layer's raw outputs.

Not fused, coordinates are locations in 0..1 and scores are weights. Fused, coordinates are offsets
around a reference and scores are logits whose softmax over a row's L * P are the weights: neither
locations nor weights ever exist in memory. Axis J is `triton_common`'s, point by point; a chunk is
BLOCK_P points of one level, the unit that the kernels work through.
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl


@triton.jit
def chunk_points(chunk, point, P: tl.constexpr, BLOCK_P: tl.constexpr):
    """A chunk's places among the L * P samples of a row, past a level's last point that one again.

    point: place inside a chunk, [J]; chunk may be [N, 1] with point [1, J].
    """
    steps: tl.constexpr = (P + BLOCK_P - 1) // BLOCK_P
    return chunk // steps * P + tl.minimum(chunk % steps * BLOCK_P + point, P - 1)


@triton.jit
def point_exists(chunk, point, P: tl.constexpr, BLOCK_P: tl.constexpr):
    """Whether a chunk's places are points of its level."""
    steps: tl.constexpr = (P + BLOCK_P - 1) // BLOCK_P
    return chunk % steps * BLOCK_P + point < P


@triton.jit
def load_pairs(pairs_ptr):
    """Two neighbours from every pointer [J], [J, 2] as stored."""
    return tl.load(pairs_ptr[:, None] + tl.arange(0, 2)[None, :])


@triton.jit
def frame(reference_ptr, w, h, P: tl.constexpr, FUSED: tl.constexpr, BOX: tl.constexpr):
    """(origin x, origin y, span x, span y): a position in pixels is origin + coordinate * span.

    reference_ptr [J] to (x, y), or with BOX to (cx, cy, w, h). Around a point an offset counts
    pixels, a location's division by the map's size and its product with it left out; around a box
    an offset of P reaches the edge.
    """
    width, height = w.to(tl.float32), h.to(tl.float32)
    if FUSED:
        origin_x = tl.load(reference_ptr) * width - 0.5
        origin_y = tl.load(reference_ptr + 1) * height - 0.5
        if BOX:
            span_x = tl.load(reference_ptr + 2) * (width * (0.5 / P))
            span_y = tl.load(reference_ptr + 3) * (height * (0.5 / P))
        else:
            span_x, span_y = 1.0, 1.0
    else:
        origin_x, origin_y, span_x, span_y = -0.5, -0.5, width, height
    return origin_x, origin_y, span_x, span_y


@triton.jit
def load_logits(scores_ptr, chunk, point, CHUNKS: tl.constexpr, P: tl.constexpr,
                BLOCK_P: tl.constexpr):  # fmt: skip
    """All logits of the rows [N, J] in fp32, -inf where there is none.

    scores_ptr [J] to the first of a row, chunk [N, 1], point [1, J].
    """
    exists = (chunk < CHUNKS) & point_exists(chunk, point, P, BLOCK_P)
    pointers = scores_ptr[None, :] + chunk_points(chunk, point, P, BLOCK_P)
    return tl.load(pointers, mask=exists, other=float("-inf")).to(tl.float32)


@triton.jit
def softmax_terms(logits, BLOCK_P: tl.constexpr, BLOCK_R: tl.constexpr):
    """A row's largest logit and the inverse sum of exp(logit - largest): [J], logits [N, J]."""
    by_point = tl.reshape(tl.max(logits, axis=0), [BLOCK_P, BLOCK_R])
    largest = _to_samples(tl.max(by_point, axis=0), BLOCK_P, BLOCK_R)
    total = row_sums(tl.sum(tl.exp(logits - largest[None, :]), axis=0), BLOCK_P, BLOCK_R)
    return largest, 1.0 / total


@triton.jit
def row_sums(values, BLOCK_P: tl.constexpr, BLOCK_R: tl.constexpr):
    """Sums over the points of a row, [J] as values are: every sample gets its row's."""
    by_point = tl.reshape(values, [BLOCK_P, BLOCK_R])
    return _to_samples(tl.sum(by_point, axis=0), BLOCK_P, BLOCK_R)


@triton.jit
def _to_samples(rows, BLOCK_P: tl.constexpr, BLOCK_R: tl.constexpr):
    repeated = tl.broadcast_to(rows[None, :], [BLOCK_P, BLOCK_R])
    return tl.reshape(repeated, [BLOCK_P * BLOCK_R])

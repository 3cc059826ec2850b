"""The costs of matching on a CPU in one pass over the memory, compiled by numba.

Imported only where numba is there: `pair_costs_kernel` does that.
"""

# what is compiled is numba's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false

from detr_kernels.deform_attn.numba_kernels import compiled


@compiled
def fill(out, by_class, rows, boxes, wanted, numbers):
    """Write the costs of all boxes and queries of an image.

    out: [T, Q], written. by_class: [C, Q], what saying a class costs a query. rows: int64 [T], the
    row there of every box. boxes: [4, Q], cx, cy, w, h; wanted: [T, 4]. numbers: [6] of the dtype
    of all of them: weights of class, L1 and GIoU, eps, the least denominator, one half.
    """
    by_label, by_distance, by_giou, eps, tiny, half = numbers
    zero = half - half
    for t in range(out.shape[0]):
        row = rows[t]
        cx, cy, w, h = wanted[t, 0], wanted[t, 1], wanted[t, 2], wanted[t, 3]
        left, right = cx - w * half, cx + w * half
        top, bottom = cy - h * half, cy + h * half
        area = w * h
        for q in range(out.shape[1]):
            qx, qy, qw, qh = boxes[0, q], boxes[1, q], boxes[2, q], boxes[3, q]
            apart = abs(qx - cx) + abs(qy - cy) + abs(qw - w) + abs(qh - h)
            q_left, q_right = qx - qw * half, qx + qw * half
            q_top, q_bottom = qy - qh * half, qy + qh * half
            # written out: built-in minima and maxima are no vector instructions
            across = (q_right if q_right < right else right) - (q_left if q_left > left else left)
            down = (q_bottom if q_bottom < bottom else bottom) - (q_top if q_top > top else top)
            wide = (q_right if q_right > right else right) - (q_left if q_left < left else left)
            high = (q_bottom if q_bottom > bottom else bottom) - (q_top if q_top < top else top)
            shared = (across if across > zero else zero) * (down if down > zero else zero)
            hull = (wide if wide > zero else zero) * (high if high > zero else zero)
            union = qw * qh + area - shared
            within = union + eps
            around = hull + eps
            iou = shared / (within if within > tiny else tiny)
            outside = (hull - union) / (around if around > tiny else tiny)
            out[t, q] = (
                by_label * by_class[row, q] + by_distance * apart - by_giou * (iou - outside)
            )

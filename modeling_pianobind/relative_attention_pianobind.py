"""Attention with relative key-query positions, which transformers 5 no longer has."""

import torch
import torch.nn.functional as F

BLOCK_PLACES = 64  # queries (or keys) whose distances are looked up in one matrix product
# Scores held at a time on a CPU: larger buffers go back to the system after every layer, and fetching their pages
# again takes several times as long as the arithmetic.
CPU_SCORES = 12 * 512 * 512


def relative_key_query_attention(q, k, v, distances, attention_mask):
    """Attention whose scores are `(q_i k_j + q_i D(i - j) + k_j D(i - j)) / sqrt(head_size)`.

    Args:
        q, k, v (`torch.Tensor` of shape `(batch, heads, length, head_size)`): as projected.
        distances (`torch.Tensor` of shape `(2 * longest - 1, head_size)`): `D`; row `i - j + longest - 1`.
        attention_mask (`torch.Tensor` of shape `(batch, 1, 1, length)`, bool): False on padding.
    Returns:
        `torch.Tensor` of shape `(batch, heads, length, head_size)`.
    Raises:
        ValueError: the sequence is longer than the table of distances reaches.
    Source: arXiv 2009.13658, method 4; as BERT's `relative_key_query` in transformers 4
        (https://github.com/huggingface/transformers/blob/v4.46.0/src/transformers/models/bert/modeling_bert.py#L301).
    Differs: the table is multiplied first and the products are shifted into place, so that no
        `(length, length, head_size)` tensor is made; both terms reach the fused attention as its additive mask.
    """
    heads, length = q.shape[1:3]
    longest = (len(distances) + 1) // 2
    if length > longest:
        raise ValueError(f"a window holds {length} notes, more than the {longest} that the positions were made for.")
    table = distances[longest - length : longest + length - 1] / q.shape[-1] ** 0.5
    backward = table.flip(0)
    step = max(1, CPU_SCORES // (heads * length * length)) if q.device.type == "cpu" else len(q)
    mixed = []
    for first in range(0, len(q), step):
        queries, keys, values = (x[first : first + step] for x in (q, k, v))
        bias = _shifted_products(queries, backward) + _shifted_products(keys, table).transpose(-1, -2)
        bias = bias.masked_fill(~attention_mask[first : first + step], float("-inf"))
        mixed.append(F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias))
    return torch.cat(mixed)


def _shifted_products(x, table):
    """`x (..., length, size)` and `table (2 * length - 1, size)` -> `out[i, j] = x[i] . table[length - 1 - i + j]`.

    Each block of rows needs a part of the table only, which halves the work. In a block, the wanted entries of row
    `i` begin one column before those of row `i - 1`: read flat, that is a matrix with rows one column shorter.
    """
    length, size = x.shape[-2:]
    blocks = []
    for first in range(0, length, BLOCK_PLACES):
        rows = x[..., first : first + BLOCK_PLACES, :]
        count = rows.shape[-2]
        columns = length + count - 1
        part = table[length - first - count : 2 * length - 1 - first]
        products = (rows.reshape(-1, size) @ part.T).view(*rows.shape[:-1], columns)
        if count > 1:  # one row needs no shift
            flat = products.flatten(-2)[..., count - 1 : count * columns - 1]
            products = flat.unflatten(-1, (count, columns - 1))[..., :length]
        blocks.append(products)
    return torch.cat(blocks, dim=-2)


__all__ = ["relative_key_query_attention"]

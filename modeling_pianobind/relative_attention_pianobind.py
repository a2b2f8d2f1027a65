"""Attention with relative key-query positions, which transformers 5 no longer has."""

import torch
import torch.nn.functional as F

BLOCK_PLACES = 64  # queries (or keys) whose distances are looked up in one matrix product
# Scores that a CPU works on at a time (six heads of 512 notes): they stay in its cache, and small buffers are reused
# where large ones go back to the system after every layer, which costs more than the arithmetic.
CPU_SCORES = 6 * 512 * 512


def relative_key_query_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, distances: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
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
    on_cpu = q.device.type == "cpu"
    step = max(1, CPU_SCORES // (length * length)) if on_cpu else len(q) * heads
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (batch * heads, length, head_size)
    mask = attention_mask[:, 0].repeat_interleave(heads, 0)
    mixed = []
    for first in range(0, len(q), step):
        queries, keys, values, seen = (x[first : first + step] for x in (q, k, v, mask))
        if on_cpu:  # skips padding after the last note; on other devices reading the length would block
            last = int((seen.any(0)[0] * torch.arange(1, length + 1)).max().clamp(min=1))
            keys, values, seen = keys[:, :last], values[:, :last], seen[..., :last]
        bias = torch.cat(_shifted_products(queries, backward, keys.shape[1]), dim=1)
        bias += torch.cat([block.mT for block in _shifted_products(keys, table, length)], dim=2)
        if not on_cpu or not seen.all():
            bias = bias.masked_fill_(~seen, float("-inf"))
        # heads are batch rows here, because each has its own mask
        fused = F.scaled_dot_product_attention(
            queries[:, None], keys[:, None], values[:, None], attn_mask=bias[:, None]
        )
        mixed.append(fused[:, 0])
    return torch.cat(mixed).unflatten(0, (-1, heads))


def _shifted_products(x: torch.Tensor, table: torch.Tensor, width: int) -> list:
    """Products of each row with the part of a table that begins one place earlier than that of the row before.

    Args:
        x (`torch.Tensor` of shape `(batch, rows, size)`): at most as many rows as the table reaches to each side.
        table (`torch.Tensor` of shape `(2 * reach + 1, size)`): its row `reach` belongs to `i == j`.
    Returns:
        Blocks of rows of `out (batch, rows, width)` with `out[i, j] = x[i] . table[reach - i + j]`.

    Each block needs a part of the table only, which halves the work. In a block, the wanted entries of a row begin one
    column before those of the row before: read flat, that is a matrix with rows one column shorter.
    """
    batch, rows, size = x.shape
    reach = len(table) // 2
    blocks = []
    for first in range(0, rows, BLOCK_PLACES):
        block = x[:, first : first + BLOCK_PLACES]
        count = block.shape[1]
        columns = width + count - 1
        part = table[reach - first - count + 1 : reach - first + width]
        products = (block.reshape(-1, size) @ part.T).view(batch, count, columns)
        if count > 1:  # one row needs no shift
            flat = products.flatten(1)[:, count - 1 : count * columns - 1]
            products = flat.unflatten(1, (count, columns - 1))[..., :width]
        blocks.append(products)
    return blocks


__all__ = ["relative_key_query_attention"]

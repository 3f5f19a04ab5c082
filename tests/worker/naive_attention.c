// A paged decode as aiter's pa_fwd_asm is called, in the plainest way: each of 256 lanes computes
// four elements of one of eight query heads. For tests of what launches such kernels.
typedef _Float16 half;
#define PAD3(a, b, c) int a, int b, int c
#define NULLABLE __attribute__((unused))

__attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(256, 256))) void naive_attention(
    half *out, long pad1, const half *query, long pad2, const half *keys, long pad3,
    const half *values, long pad4, const int *table, long pad5, const int *lens, long pad6,
    NULLABLE const float *k_scales, long pad7, NULLABLE const float *v_scales, long pad8,
    float scale, PAD3(pad9, pad10, pad11), unsigned columns, PAD3(pad12, pad13, pad14),
    unsigned kv_heads, PAD3(pad15, pad16, pad17), unsigned query_bytes,
    PAD3(pad18, pad19, pad20), unsigned block_bytes, PAD3(pad21, pad22, pad23),
    unsigned head_bytes, PAD3(pad24, pad25, pad26), unsigned ratio, PAD3(pad27, pad28, pad29)) {
  unsigned sequence = __builtin_amdgcn_workgroup_id_y(), group = __builtin_amdgcn_workgroup_id_x();
  unsigned lane = __builtin_amdgcn_workitem_id_x(), head = lane / 32, first = lane % 32 * 4;
  if (head >= ratio) return;
  unsigned at = sequence * (query_bytes / 2) + (group * ratio + head) * 128;
  float top = -1.0e30f, sum = 0.0f, total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int key = 0; key < lens[sequence]; ++key) {
    unsigned block = table[sequence * columns + key / 16], slot = key % 16;
    const half *k = keys + (block * block_bytes + group * head_bytes) / 2;
    const half *v = values + (block * block_bytes + group * head_bytes) / 2;
    float logit = 0.0f;
    for (unsigned d = 0; d < 128; ++d)
      logit += (float)query[at + d] * (float)k[d / 8 * 128 + slot * 8 + d % 8];
    logit *= scale;
    float next = logit > top ? logit : top;
    float kept = __builtin_amdgcn_exp2f(top - next), weight = __builtin_amdgcn_exp2f(logit - next);
    sum = sum * kept + weight;
    for (unsigned d = 0; d < 4; ++d)
      total[d] = total[d] * kept +
                 weight * (float)v[slot / 8 * 1024 + (first + d) * 8 + slot % 8];
    top = next;
  }
  for (unsigned d = 0; d < 4; ++d) out[at + first + d] = (half)(total[d] / sum);
}

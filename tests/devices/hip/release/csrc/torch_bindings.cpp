TORCH_LIBRARY_EXPAND(_C_cache_ops, cache_ops) {
  cache_ops.def(
      "reshape_and_cache(Tensor! out, Tensor in,"
      "                  str kind, float factor, int across,"
      "                  Tensor? bias) -> ()");
  cache_ops.impl("reshape_and_cache", torch::kCUDA, &reshape_and_cache);
}

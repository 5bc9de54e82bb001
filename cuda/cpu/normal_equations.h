// Gauss-Newton's inner loops: the normal equations of many frames, each a dense block, and the
// factorisation, solution and product of such blocks. A frame is one piece of work, so results do
// not depend on the number of threads.
#pragma once

#include "parallel.h"
#include "simd.h"

namespace {

using namespace avatar3d;

constexpr int kPointsTogether = 24;  // two rows each; some 20 kB at 100 unknowns, for the L1 cache
constexpr int kTileRows = kWidth == 16 ? 8 : 4;
constexpr int kTileVectors = 3;

inline int padded(int columns) { return (columns + kWidth - 1) / kWidth * kWidth; }

// sums[i][v..v + V) += sum over r of rows[r][i] rows[r][v..v + V) for kTileRows rows i from
// `first`.
template <int V>
A3D_INLINE void add_tile(const float* rows, int count, int stride, int first, int v, float* sums) {
  Vec acc[kTileRows][V];
  float* out = sums + (size_t)first * stride + v * kWidth;
  for (int i = 0; i < kTileRows; i++)
    for (int k = 0; k < V; k++) acc[i][k] = load(out + (size_t)i * stride + k * kWidth);
  for (int r = 0; r < count; r++) {
    const float* row = rows + (size_t)r * stride;
    Vec b[V];
    for (int k = 0; k < V; k++) b[k] = load(row + (v + k) * kWidth);
    for (int i = 0; i < kTileRows; i++) {
      const Vec a = set(row[first + i]);
      for (int k = 0; k < V; k++) acc[i][k] = madd(a, b[k], acc[i][k]);
    }
  }
  for (int i = 0; i < kTileRows; i++)
    for (int k = 0; k < V; k++) store(out + (size_t)i * stride + k * kWidth, acc[i][k]);
}

// Adds rows^T rows to the upper triangle of sums (stride, stride), and a little below it.
inline void add_products(const float* rows, int count, int stride, float* sums) {
  const int vectors = stride / kWidth;
  for (int first = 0; first < stride; first += kTileRows) {
    int v = first / kWidth;
    for (; v + kTileVectors <= vectors; v += kTileVectors)
      add_tile<kTileVectors>(rows, count, stride, first, v, sums);
    if (v + 2 == vectors)
      add_tile<2>(rows, count, stride, first, v, sums);
    else if (v + 1 == vectors)
      add_tile<1>(rows, count, stride, first, v, sums);
  }
}

// out = x a + y b + z c, of `size` values each, or added to what is there
template <bool Add>
A3D_INLINE void mix_rows(const float* abc, int size, float x, float y, float z, float* out) {
  const Vec p = set(x), q = set(y), r = set(z);
  int k = 0;
  for (; k + kWidth <= size; k += kWidth) {
    Vec v = mul(p, load(abc + k));
    if (Add) v = madd(p, load(abc + k), load(out + k));
    v = madd(q, load(abc + size + k), v);
    store(out + k, madd(r, load(abc + 2 * size + k), v));
  }
  if (k == size) return;
  const int n = size - k;
  Vec v = mul(p, load_part(abc + k, n));
  if (Add) v = add(v, load_part(out + k, n));
  v = madd(q, load_part(abc + size + k, n), v);
  store_part(out + k, madd(r, load_part(abc + 2 * size + k, n), v), n);
}

// The two rows of one point times `scale`: slopes by the basis, then by the frame's own unknowns.
template <bool Add>
inline void fill_rows(const NormalInput& in, size_t frame, int point, float scale, float* row,
                      int stride) {
  const size_t q = frame * in.points + point;
  const float* basis = in.basis + (size_t)point * 3 * in.basis_size;
  for (int axis = 0; axis < 2; axis++, row += stride) {
    const float* view = in.view + (2 * q + axis) * 3;
    const float* own = in.own + (2 * q + axis) * in.own_size;
    mix_rows<Add>(basis, in.basis_size, scale * view[0], scale * view[1], scale * view[2], row);
    float* out = row + in.basis_size;
    for (int k = 0; k < in.own_size; k++) out[k] = scale * own[k] + (Add ? out[k] : 0.0f);
  }
}

// Rows of the residual r: a point's, or the difference of two points'; times sqrt(strength).
inline void fill_residual(const NormalInput& in, size_t frame, int r, float* row, int stride) {
  const size_t residual = frame * (in.points + in.pairs) + r;
  const float scale = sqrtf(in.strength[residual]);
  if (r < in.points) {
    fill_rows<false>(in, frame, r, scale, row, stride);
  } else {
    const int32_t* pair = in.pair + 2 * (size_t)(r - in.points);
    fill_rows<false>(in, frame, pair[0], scale, row, stride);
    fill_rows<true>(in, frame, pair[1], -scale, row, stride);
  }
  const int last = in.basis_size + in.own_size;
  for (int axis = 0; axis < 2; axis++)
    row[axis * stride + last] = scale * in.error[2 * residual + axis];
}

// From columns (basis, own, error) to H (N, N) and g (N,) with the frame's own unknowns first.
inline void write_block(const float* sums, int stride, int own, int size, float* H, float* g) {
  const int count = own + size;
  for (int i = 0; i < count; i++) {
    const int a = i < own ? size + i : i - own;
    for (int k = 0; k < count; k++) {
      const int b = k < own ? size + k : k - own;
      H[(size_t)i * count + k] = sums[(size_t)smaller(a, b) * stride + larger(a, b)];
    }
    g[i] = sums[(size_t)a * stride + count];
  }
}

void normal_equations(const NormalInput& in, float* H, float* g, Buffer& scratch, int threads) {
  const int count = in.basis_size + in.own_size, stride = padded(count + 1);
  const size_t rows_size = (size_t)2 * kPointsTogether * stride,
               sums_size = (size_t)stride * stride;
  const size_t each = rows_size + sums_size;
  float* all = reserve<float>(scratch, each * larger(threads, 1));
  parallel_for(in.frames, threads, [&](int frame, int worker) {
    float *rows = all + each * worker, *sums = rows + rows_size;
    memset(rows, 0, sizeof(float) * each);
    int filled = 0;
    const int residuals = in.points + in.pairs;
    for (int r = 0; r < residuals; r++) {
      if (in.strength[(size_t)frame * residuals + r] > 0)
        fill_residual(in, frame, r, rows + (size_t)2 * stride * filled++, stride);
      if (filled < kPointsTogether && r + 1 < residuals) continue;
      add_products(rows, 2 * filled, stride, sums);
      filled = 0;
    }
    write_block(sums, stride, in.own_size, in.basis_size, H + (size_t)frame * count * count,
                g + (size_t)frame * count);
  });
}

inline float dot_product(const float* a, const float* b, int count) {
  Vec total = set(0.0f);
  int k = 0;
  for (; k + kWidth <= count; k += kWidth) total = madd(load(a + k), load(b + k), total);
  if (k < count) total = madd(load_part(a + k, count - k), load_part(b + k, count - k), total);
  return sum(total);
}

// a += factor b
inline void add_scaled(float* a, float factor, const float* b, int count) {
  const Vec f = set(factor);
  int k = 0;
  for (; k + kWidth <= count; k += kWidth) store(a + k, madd(f, load(b + k), load(a + k)));
  if (k < count) {
    const int n = count - k;
    store_part(a + k, madd(f, load_part(b + k, n), load_part(a + k, n)), n);
  }
}

// Upper U with U^T U = mask H mask^T + diag(added), and 1 / U on its diagonal. False if a block is
// not positive definite.
inline bool factor_block(const float* H, const float* mask, const float* added, int n, float* U) {
  for (int i = 0; i < n; i++) {
    float* A3D_RESTRICT row = U + (size_t)i * n;
    const float* A3D_RESTRICT from = H + (size_t)i * n;
    const float own = mask[i];
    for (int k = i; k < n; k++) row[k] = own * mask[k] * from[k];
    row[i] += added[i];
    for (int j = 0; j < i; j++) {
      const float factor = U[(size_t)j * n + i];
      if (factor != 0) add_scaled(row + i, -factor, U + (size_t)j * n + i, n - i);
    }
    if (!(row[i] > 0)) return false;
    const float scale = 1 / sqrtf(row[i]);
    row[i] = scale;
    for (int k = i + 1; k < n; k++) row[k] *= scale;
  }
  return true;
}

bool factor_blocks(const BlockInput& in, const float* mask, const float* added, float* U,
                   int threads) {
  int failed = 0;  // written by several threads, but only ever to 1
  const size_t n = in.size;
  parallel_for(in.frames, threads, [&](int f, int) {
    if (!factor_block(in.blocks + f * n * n, mask + f * n, added + f * n, in.size, U + f * n * n))
      *const_cast<volatile int*>(&failed) = 1;
  });
  return !failed;
}

// x = (U^T U)^-1 b, reading the upper triangle of U only.
void solve_blocks(const BlockInput& in, const float* b, float* x, int threads) {
  const int n = in.size;
  parallel_for(in.frames, threads, [&](int f, int) {
    const float* U = in.blocks + (size_t)f * n * n;
    float* out = x + (size_t)f * n;
    memcpy(out, b + (size_t)f * n, sizeof(float) * n);
    for (int i = 0; i < n; i++) {
      const float* row = U + (size_t)i * n;
      out[i] *= row[i];
      add_scaled(out + i + 1, -out[i], row + i + 1, n - i - 1);
    }
    for (int i = n - 1; i >= 0; i--) {
      const float* row = U + (size_t)i * n;
      out[i] = (out[i] - dot_product(row + i + 1, out + i + 1, n - i - 1)) * row[i];
    }
  });
}

// y = H x of symmetric blocks, reading their upper triangle only.
void multiply_blocks(const BlockInput& in, const float* x, float* y, int threads) {
  const int n = in.size;
  parallel_for(in.frames, threads, [&](int f, int) {
    const float* H = in.blocks + (size_t)f * n * n;
    const float* from = x + (size_t)f * n;
    float* out = y + (size_t)f * n;
    memset(out, 0, sizeof(float) * n);
    for (int i = 0; i < n; i++) {
      const float* row = H + (size_t)i * n;
      out[i] += dot_product(row + i, from + i, n - i);
      add_scaled(out + i + 1, from[i], row + i + 1, n - i - 1);
    }
  });
}

}  // namespace

// Vectors of channels, the sizes of tiles, and what fits into the registers of an instruction set.

#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "across.h"

namespace {

constexpr int TILE_H = 2, TILE_W = 4;  // output pixels of a tile
constexpr int ROWS = 4, COLUMNS = 6;   // input pixels of a tile
constexpr int FREQUENCIES = ROWS * COLUMNS;
// Input channels, at most, that are added up before a sum is rounded into memory. No more than half of them, since sums
// of few channels are more exact in torch, too.
constexpr int SUMMED = 32;

// The numbers of one frequency are so far from those of the next: n would often be a power of two, and addresses that
// are powers of two apart share a few places of the cache.
inline size_t apart(size_t n) { return n + 16; }

// Channels that are handled at once, and what fits into the registers: vectors of filters times tiles, or times pixels.
#ifdef __AVX512F__
constexpr int LANES = 16, WIDEST_PANEL = 4, TILES_AT_ONCE = 6, PIXELS_AT_ONCE = 8;
#else
constexpr int LANES = 8, WIDEST_PANEL = 2, TILES_AT_ONCE = 6, PIXELS_AT_ONCE = 6;
#endif

constexpr int VECTOR = LANES * sizeof(float);
typedef float Lanes __attribute__((vector_size(VECTOR)));
typedef float Anywhere __attribute__((vector_size(VECTOR), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(VECTOR)));
typedef double Doubles __attribute__((vector_size(VECTOR)));  // half as many numbers
typedef float Half __attribute__((vector_size(VECTOR / 2), aligned(4), may_alias));
typedef Widest::Mask Mask;  // one bit a lane

inline Lanes load(const float* from) { return *reinterpret_cast<const Anywhere*>(from); }
inline void store(float* to, Lanes value) { *reinterpret_cast<Anywhere*>(to) = value; }
inline Doubles load_half(const float* from) { return __builtin_convertvector(*reinterpret_cast<const Half*>(from), Doubles); }
inline void store_half(float* to, Doubles value) {
    *reinterpret_cast<Half*>(to) = __builtin_convertvector(value, Half);
}
inline Lanes relu(Lanes x) { return x <= 0.f ? Lanes{} : x; }  // NaN stays NaN
// A sum of vectors, too long for single precision: equal numbers would all be rounded to the same side.
typedef Sum<Widest> Total;
inline bool finite(Lanes x) {
    Bits same = (x - x) == 0.f;
    int32_t all = -1;
    for (int i = 0; i < LANES; i++) all &= same[i];
    return all;
}
#ifdef __AVX512F__
inline Mask where_positive(Lanes x) { return _mm512_cmp_ps_mask(__m512(x), _mm512_setzero_ps(), _CMP_GT_OQ); }
#else
inline Mask where_positive(Lanes x) {
    return Mask(_mm256_movemask_ps(_mm256_cmp_ps(__m256(x), _mm256_setzero_ps(), _CMP_GT_OQ)));
}
#endif
inline Lanes only(Mask mask, Lanes x) { return Widest::only(mask, x); }

}  // namespace

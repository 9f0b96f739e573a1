// Products of transformed tiles and filters, frequency by frequency.

#pragma once

#include <algorithm>

#include "lanes.h"

namespace {

// Tiles (n, ci) times a panel of filters (ci, LANES * PANEL) -> tiles (n, co), at one frequency.
template <int TILES, int PANEL>
inline void product(const float* v, int ci, const float* u, float* m, int co) {
    const int summed = std::min(SUMMED, ci / 2);
    for (int first = 0; first < ci; first += summed) {
        int last = std::min(first + summed, ci);
        Lanes sums[TILES][PANEL] = {};
        for (int k = first; k < last; k++) {
            Lanes filter[PANEL];
            for (int j = 0; j < PANEL; j++) filter[j] = load(u + (k * PANEL + j) * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < TILES; i++)
                for (int j = 0; j < PANEL; j++) sums[i][j] += v[i * ci + k] * filter[j];
        }
        for (int i = 0; i < TILES; i++)
            for (int j = 0; j < PANEL; j++) {
                float* to = m + i * co + j * LANES;
                store(to, first ? load(to) + sums[i][j] : sums[i][j]);
            }
    }
}

template <int PANEL>
void products(const float* v, int n, int ci, const float* u, size_t to_next_panel, float* m, int co) {
    for (int column = 0; column < co; column += PANEL * LANES, u += to_next_panel) {
        int i = 0;
        for (; i + TILES_AT_ONCE <= n; i += TILES_AT_ONCE)
            product<TILES_AT_ONCE, PANEL>(v + i * ci, ci, u, m + i * co + column, co);
        for (; i + 3 <= n; i += 3) product<3, PANEL>(v + i * ci, ci, u, m + i * co + column, co);
        for (; i < n; i++) product<1, PANEL>(v + i * ci, ci, u, m + i * co + column, co);
    }
}

// Some rows of filters' gradients (ci, co) += tiles (n, ci) transposed times gradients of tiles (n, co).
template <int CHANNELS, int PANEL>
inline void outer_product(const float* v, int n, int ci, const float* d, int co, float* u) {
    Lanes sums[CHANNELS][PANEL] = {};
    for (int t = 0; t < n; t++) {
        Lanes gradient[PANEL];
        for (int j = 0; j < PANEL; j++) gradient[j] = load(d + t * co + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < CHANNELS; i++)
            for (int j = 0; j < PANEL; j++) sums[i][j] += v[t * ci + i] * gradient[j];
    }
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j < PANEL; j++) {
            float* to = u + i * co + j * LANES;
            store(to, load(to) + sums[i][j]);
        }
}

template <int PANEL>
void outer_products(const float* v, int n, int ci, const float* d, int co, float* u) {
    for (int column = 0; column < co; column += PANEL * LANES) {
        int i = 0;
        for (; i + 6 <= ci; i += 6) outer_product<6, PANEL>(v + i, n, ci, d + column, co, u + i * co + column);
        for (; i + 2 <= ci; i += 2) outer_product<2, PANEL>(v + i, n, ci, d + column, co, u + i * co + column);
    }
}

// Vectors of filters that a panel holds.
inline int panel_of(int co) {
    int panel = WIDEST_PANEL;
    while (co / LANES % panel) panel--;
    return panel;
}

template <class Function>
inline void with_panel(int panel, Function function) {
    switch (panel) {
#ifdef __AVX512F__
        case 4: return function(std::integral_constant<int, 4>());
        case 3: return function(std::integral_constant<int, 3>());
#endif
        case 2: return function(std::integral_constant<int, 2>());
        default: return function(std::integral_constant<int, 1>());
    }
}

// Tiles (24, n, ci) times panels of filters (co / panel, 24, ci, panel) -> (24, n, co).
void all_products(const float* v, int n, int most, int ci, const float* u, int panel, float* m, int co) {
    with_panel(panel, [=](auto width) {
        size_t next = apart(size_t(ci) * panel * LANES);
        for (int f = 0; f < FREQUENCIES; f++)
            products<width.value>(v + f * apart(size_t(most) * ci), n, ci, u + f * next, FREQUENCIES * next,
                                  m + f * apart(size_t(most) * co), co);
    });
}

// Filters' gradients (24, ci, co) += tiles (24, n, ci) transposed times gradients of tiles (24, n, co).
void all_outer_products(const float* v, int n, int most, int ci, const float* d, int panel, int co, float* u) {
    with_panel(panel, [=](auto width) {
        for (int f = 0; f < FREQUENCIES; f++)
            outer_products<width.value>(v + f * apart(size_t(most) * ci), n, ci, d + f * apart(size_t(most) * co), co,
                                        u + f * apart(size_t(ci) * co));
    });
}

}  // namespace

// The transforms of tiles in one direction: of 4 or 6 values in place, or from n to m values, which lie `step` apart.

#pragma once

#include "lanes.h"

namespace {

constexpr float A1 = 0.75f, A2 = A1 * A1, A3 = A2 * A1, B1 = 1.5f, B2 = B1 * B1, B3 = B2 * B1;

inline void input_4(Lanes* d, int step) {
    Lanes x0 = d[0], x1 = d[step], x2 = d[2 * step], x3 = d[3 * step];
    d[0] = x0 - x2;
    d[step] = x1 + x2;
    d[2 * step] = x2 - x1;
    d[3 * step] = x3 - x1;
}
inline void input_6(Lanes* d) {
    Lanes x0 = d[0], x1 = d[1], x2 = d[2], x3 = d[3], x4 = d[4], x5 = d[5];
    Lanes even_a = x4 - B2 * x2, odd_a = A1 * (x3 - B2 * x1), even_b = x4 - A2 * x2, odd_b = B1 * (x3 - A2 * x1);
    d[0] = (x4 - (A2 + B2) * x2) + (A2 * B2) * x0;
    d[1] = even_a + odd_a;
    d[2] = even_a - odd_a;
    d[3] = even_b + odd_b;
    d[4] = even_b - odd_b;
    d[5] = (x5 - (A2 + B2) * x3) + (A2 * B2) * x1;
}
inline void output_4(const Lanes* m, Lanes* out) {  // 6 -> 4
    Lanes sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
    out[0] = m[0] + sum_a + sum_b;
    out[1] = A1 * difference_a + B1 * difference_b;
    out[2] = A2 * sum_a + B2 * sum_b;
    out[3] = (A3 * difference_a + B3 * difference_b) + m[5];
}
inline void gradient_4(Lanes* d, int step) {  // 2 -> 4
    Lanes x0 = d[0], x1 = d[step];
    d[step] = x0 + x1;
    d[2 * step] = x0 - x1;
    d[3 * step] = x1;
}
inline void gradient_6(const Lanes* x, Lanes* out) {  // 4 -> 6
    Lanes even_a = x[0] + A2 * x[2], odd_a = A1 * x[1] + A3 * x[3];
    Lanes even_b = x[0] + B2 * x[2], odd_b = B1 * x[1] + B3 * x[3];
    out[0] = x[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = x[3];
}

}  // namespace

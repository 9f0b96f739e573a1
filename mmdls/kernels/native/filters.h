// Filters of 3 x 3, transformed and back.

#pragma once

#include <vector>

#include "memory.h"
#include "products.h"
#include "transforms.h"

namespace {

// Filters (co, ci, 3, 3) in memory, wherever their numbers lie.
struct Filters {
    const float* data;
    int ci, co;
    int64_t step_out, step_in, step_y, step_x;

    Filters(const float* data, int ci, int co, const int64_t* steps)
        : data(data), ci(ci), co(co), step_out(steps[0]), step_in(steps[1]), step_y(steps[2]), step_x(steps[3]) {}
    const float* at(int out, int in) const { return data + out * step_out + in * step_in; }
    // Those of the way back: outputs and inputs change places, and pixels are read backwards.
    Filters backwards() const {
        const int64_t steps[] = {step_in, step_out, -step_y, -step_x};
        return {data + 2 * step_y + 2 * step_x, co, ci, steps};
    }
};

// One step of a transform and of its transpose: rows by 4 x 3, columns by 6 x 3 numbers.
constexpr double SIDE_A = 2. * A2 * (A2 - B2), SIDE_B = 2. * B2 * (B2 - A2);
constexpr double ROW_FILTER[ROWS][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
constexpr double COLUMN_FILTER[COLUMNS][3] = {
    {1 / double(A2 * B2), 0, 0},
    {1 / SIDE_A, A1 / SIDE_A, A2 / SIDE_A},
    {1 / SIDE_A, -A1 / SIDE_A, A2 / SIDE_A},
    {1 / SIDE_B, B1 / SIDE_B, B2 / SIDE_B},
    {1 / SIDE_B, -B1 / SIDE_B, B2 / SIDE_B},
    {0, 0, 1},
};

// Transformed filters (24, co / panel, ci, panel).
Buffer transformed(const Filters& filters) {
    int ci = filters.ci, co = filters.co, panel = panel_of(co) * LANES;
    Buffer u = buffer(FREQUENCIES * apart(size_t(ci) * co));
    for (int c = 0; c < co; c += LANES)
        for (int k = 0; k < ci; k++) {
            double taps[3][3][LANES], rows[ROWS][3][LANES];
            for (int l = 0; l < LANES; l++) {
                const float* filter = filters.at(c + l, k);
                for (int y = 0; y < 3; y++)
                    for (int x = 0; x < 3; x++) taps[y][x][l] = filter[y * filters.step_y + x * filters.step_x];
            }
            for (int x = 0; x < 3; x++)
                for (int i = 0; i < ROWS; i++)
                    for (int l = 0; l < LANES; l++)
                        rows[i][x][l] = ROW_FILTER[i][0] * taps[0][x][l] + ROW_FILTER[i][1] * taps[1][x][l] +
                                        ROW_FILTER[i][2] * taps[2][x][l];
            float* to = u.get() + (size_t(c / panel) * ci + k) * panel + c % panel;
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLUMNS; j++, to += apart(size_t(ci) * co))
                    for (int l = 0; l < LANES; l++)
                        to[l] = float(COLUMN_FILTER[j][0] * rows[i][0][l] + COLUMN_FILTER[j][1] * rows[i][1][l] +
                                      COLUMN_FILTER[j][2] * rows[i][2][l]);
        }
    return u;
}

// Gradients of transformed filters, (24, ci, co) a part, -> gradients of filters (co, ci, 3, 3), added up over parts.
void transform_back(const std::vector<const float*>& parts, int ci, int co, float* w) {
    for (int c = 0; c < co; c += LANES)
        for (int k = 0; k < ci; k++) {
            double rows[ROWS][3][LANES] = {};
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLUMNS; j++) {
                    double sum[LANES] = {};
                    for (const float* part : parts)
                        for (int l = 0; l < LANES; l++) sum[l] += part[(i * COLUMNS + j) * apart(size_t(ci) * co) + size_t(k) * co + c + l];
                    for (int x = 0; x < 3; x++)
                        for (int l = 0; l < LANES; l++) rows[i][x][l] += COLUMN_FILTER[j][x] * sum[l];
                }
            for (int y = 0; y < 3; y++)
                for (int x = 0; x < 3; x++)
                    for (int l = 0; l < LANES; l++) {
                        double sum = 0;
                        for (int i = 0; i < ROWS; i++) sum += ROW_FILTER[i][y] * rows[i][x][l];
                        w[(size_t(c + l) * ci + k) * 9 + y * 3 + x] = float(sum);
                    }
        }
}

}  // namespace

// Filters of 3 x 3, transformed and back.

#pragma once

#include <cstdlib>
#include <vector>

#include "memory.h"
#include "products.h"
#include "transforms.h"

namespace {

// Filters (co, ci, 3, 3) in memory, or their gradients, wherever the numbers lie.
template <class Number>
struct FiltersOf {
    Number* data;
    int ci, co;
    int64_t step_out, step_in, step_y, step_x;

    FiltersOf(Number* data, int ci, int co, const int64_t* steps)
        : data(data), ci(ci), co(co), step_out(steps[0]), step_in(steps[1]), step_y(steps[2]), step_x(steps[3]) {}
    Number* at(int out, int in) const { return data + out * step_out + in * step_in; }
    // Those of the way back: outputs and inputs change places, and pixels are read backwards.
    FiltersOf backwards() const {
        const int64_t steps[] = {step_in, step_out, -step_y, -step_x};
        return {data + 2 * step_y + 2 * step_x, co, ci, steps};
    }
    // move(number, input, tap, output) for LANES outputs and INPUTS inputs, in the order in which they lie in memory.
    template <class Move>
    void each(int out, int in, Move move) const;
};
typedef FiltersOf<const float> Filters;
typedef FiltersOf<float> FilterGradients;

constexpr int INPUTS = 16;  // a line of the cache
typedef float Taps[INPUTS][9][LANES];

template <class Number>
template <class Move>
void FiltersOf<Number>::each(int out, int in, Move move) const {
    for (int tap = 0; tap < 9; tap++) {
        Number* from = at(out, in) + tap / 3 * step_y + tap % 3 * step_x;
        if (std::abs(step_in) < std::abs(step_out))
            for (int l = 0; l < LANES; l++)
                for (int k = 0; k < INPUTS; k++) move(from[l * step_out + k * step_in], k, tap, l);
        else
            for (int k = 0; k < INPUTS; k++)
                for (int l = 0; l < LANES; l++) move(from[l * step_out + k * step_in], k, tap, l);
    }
}

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

// Numbers from one vector of transformed filters to that of the next frequency: panels (24, ci, panel) follow each other.
inline size_t to_next(int ci, int panel) { return apart(size_t(ci) * panel * LANES); }
inline size_t transformed_size(int ci, int co) {
    return size_t(co / (panel_of(co) * LANES)) * FREQUENCIES * to_next(ci, panel_of(co));
}

// Filters (9, LANES), half of the lanes, -> 24 numbers for each of them, `next` apart.
inline void transform(const float* taps, float* to, size_t next) {
    Doubles rows[ROWS][3];
    for (int x = 0; x < 3; x++) {
        Doubles top = load_half(taps + x * LANES), middle = load_half(taps + (3 + x) * LANES),
                bottom = load_half(taps + (6 + x) * LANES);
        for (int i = 0; i < ROWS; i++)
            rows[i][x] = ROW_FILTER[i][0] * top + ROW_FILTER[i][1] * middle + ROW_FILTER[i][2] * bottom;
    }
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 6
        for (int j = 0; j < COLUMNS; j++, to += next)
            store_half(to, COLUMN_FILTER[j][0] * rows[i][0] + COLUMN_FILTER[j][1] * rows[i][1] +
                               COLUMN_FILTER[j][2] * rows[i][2]);
}

// Transformed filters of the outputs of some panels, (panels, 24, ci, panel).
void transform(const Filters& filters, int64_t first_panel, int64_t last_panel, float* u) {
    int panel = panel_of(filters.co) * LANES, ci = filters.ci;
    size_t next = to_next(ci, panel / LANES);
    for (int64_t p = first_panel; p < last_panel; p++, u += FREQUENCIES * next)
        for (int first = 0; first < ci; first += INPUTS)
            for (int c = 0; c < panel; c += LANES) {
                Taps taps;
                filters.each(int(p) * panel + c, first, [&](float number, int k, int tap, int l) { taps[k][tap][l] = number; });
                for (int k = 0; k < INPUTS; k++)
                    for (int half = 0; half < LANES; half += LANES / 2)
                        transform(taps[k][0] + half, u + size_t(first + k) * panel + c + half, next);
            }
}

Buffer transformed(const Filters& filters) {
    Buffer u = buffer(transformed_size(filters.ci, filters.co));
    transform(filters, 0, filters.co / (panel_of(filters.co) * LANES), u.get());
    return u;
}

// Gradients of transformed filters of `outputs` outputs, (24, ci, outputs) a part, -> gradients of filters, from some
// inputs and from the output `out` on, added up over parts.
void transform_back(const std::vector<const float*>& parts, int outputs, const FilterGradients& filters, int out,
                    int first_input, int last_input) {
    size_t next = apart(size_t(filters.ci) * outputs);
    for (int c = 0; c < outputs; c += LANES)
        for (int first = first_input; first < last_input; first += INPUTS) {
            Taps taps;
            for (int k = 0; k < INPUTS; k++)
                for (int half = 0; half < LANES; half += LANES / 2) {
                    Doubles found[9] = {};
                    for (int i = 0; i < ROWS; i++) {
                        Doubles row[3] = {};
                        for (int j = 0; j < COLUMNS; j++) {
                            Doubles sum = {};
                            for (const float* part : parts)
                                sum += load_half(part + (i * COLUMNS + j) * next + size_t(first + k) * outputs + c + half);
                            for (int x = 0; x < 3; x++) row[x] += COLUMN_FILTER[j][x] * sum;
                        }
                        for (int tap = 0; tap < 9; tap++) found[tap] += ROW_FILTER[i][tap / 3] * row[tap % 3];
                    }
                    for (int tap = 0; tap < 9; tap++) store_half(taps[k][tap] + half, found[tap]);
                }
            filters.each(out + c, first, [&](float& number, int k, int tap, int l) { number = taps[k][tap][l]; });
        }
}

}  // namespace

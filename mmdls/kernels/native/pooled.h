// Group normalisation with ReLU, and the largest of 3 x 3 pixels around every second one: what is normalised is not kept.

#pragma once

#include <cstring>

#include "groups.h"

namespace {

// Maps (N, height, width, C) -> (N, rows, columns, C).
struct Pooled : Grouped {
    int height, width;

    Pooled(int64_t n, int height, int width, int channels, int groups)
        : Grouped{n, int64_t(height) * width, channels, groups}, height(height), width(width) {}
    int rows() const { return (height + 1) / 2; }
    int columns() const { return (width + 1) / 2; }
    size_t pooled() const { return size_t(rows()) * columns() * channels; }

    // visit(place of the pooled one, channel, first row, first column) for every vector of an image.
    template <class Visit>
    void each_window(Visit visit) const {
        size_t place = 0;
        for (int row = 0; row < rows(); row++)
            for (int column = 0; column < columns(); column++)
                for (int c = 0; c < channels; c += LANES, place += LANES) visit(place, c, 2 * row - 1, 2 * column - 1);
    }
    // visit(place, which) for those of its 9 pixels that lie in the image.
    template <class Visit>
    void each_of_window(int c, int first_row, int first_column, Visit visit) const {
#pragma GCC unroll 9
        for (int which = 0; which < 9; which++) {
            int y = first_row + which / 3, x = first_column + which % 3;
            if (y >= 0 && y < height && x >= 0 && x < width) visit((size_t(y) * width + x) * channels + c, which);
        }
    }
};

typedef uint8_t Bytes __attribute__((vector_size(LANES)));  // one a lane
constexpr int NONE = 9;                                     // of the pixels passes ReLU

// One image x -> the largest (rows, columns, C), which of the pixels that is, unless `chosen` is null, and moments.
void normalise(const Pooled& maps, Channels& own, const float* x, const float* weight, const float* bias, double epsilon,
               float* y, double* moments, uint8_t* chosen) {
    find_scales(maps, own, x, weight, bias, epsilon, moments);
    maps.each_window([&](size_t place, int c, int row, int column) {
        Lanes scale = load(own.scale.data() + c), shift = load(own.shift.data() + c), largest = {};
        Bits which = Bits{} + NONE;
        maps.each_of_window(c, row, column, [&](size_t i, int pixel) {
            Lanes value = load(x + i) * scale + shift;
            Bits larger = (value > largest) | (value != value);  // NaN, once found, stays
            largest = larger ? value : largest;
            which = larger ? Bits{} + pixel : which;
        });
        store(y + place, largest);
        if (!chosen) return;
        Bytes found = __builtin_convertvector(which, Bytes);
        std::memcpy(chosen + place, &found, sizeof found);
    });
}

// The gradient (rows, columns, C) of what was chosen of an image -> that of what was normalised.
void spread_gradient(const Pooled& maps, const uint8_t* chosen, const float* gradient, float* into) {
    std::fill_n(into, maps.image(), 0.f);
    maps.each_window([&](size_t place, int c, int row, int column) {
        Bytes found;
        std::memcpy(&found, chosen + place, sizeof found);
        Bits which = __builtin_convertvector(found, Bits);
        Lanes value = load(gradient + place);
        maps.each_of_window(c, row, column, [&](size_t i, int pixel) {
            store(into + i, load(into + i) + (which == pixel ? value : Lanes{}));
        });
    });
}

}  // namespace

// Convolutions with few channels as sums of shifted planes.
//
// A plane is one channel of a map inside a border of zeros, row after row. The output at place p of a plane is the sum,
// over channels and taps of the filter, of weight times plane[p + offset of the tap]. So vectors of pixels run across the
// ends of rows; what they find between two rows is thrown away.

#pragma once

#include <algorithm>
#include <vector>

#include "lanes.h"
#include "memory.h"

namespace {

constexpr int OUTPUTS = 4, VECTORS = 3, PLACES = VECTORS * LANES;  // outputs and places whose sums stay in the registers
constexpr int FULL = 20 * PLACES, MOST = 40 * PLACES;  // places from which on vectors are full, and that fit into the cache

// Where the taps of a filter find their pixels in the planes of a channel. Small images stand below each other, so that
// there are enough places: a row of zeros between two of them serves both, as one zero between two rows does.
struct Window {
    int height, width;  // of the output
    std::vector<int> offsets{};
    size_t plane = 0;  // numbers from one channel to the next

    int row() const { return width + 1; }
    int image() const { return (height + 1) * row(); }
    int pixels() const { return height * width; }
    int images() const { return std::max(1, FULL / image()); }
    int64_t places(int count) const { return (int64_t(count) * image() + PLACES - 1) / PLACES * PLACES; }
    int64_t places() const { return places(images()); }
    int inside() const { return row() + 1; }  // where the pixels of the first image begin in a plane
    int taps() const { return int(offsets.size()); }
};

// 3 x 3, stride 1, padding 1.
Window window_3x3(int height, int width) {
    Window window{height, width};
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) window.offsets.push_back(y * window.row() + x);
    window.plane = apart(size_t(window.places()) + window.offsets.back());
    return window;
}

// 5 x 5, stride 2, padding 2, of images of height x width: pixels of even and of odd rows and columns stand in four planes.
Window window_5x5(int height, int width) {
    Window window{(height + 1) / 2, (width + 1) / 2};
    int64_t quarter = window.places() + 2 * window.row() + 2;
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 5; x++)
            window.offsets.push_back(int((y % 2 * 2 + x % 2) * quarter + y / 2 * window.row() + x / 2));
    window.plane = apart(4 * size_t(quarter));
    return window;
}

// Planes with borders of zeros; everything is zero at first.
struct Planes {
    size_t n;
    Buffer numbers;

    explicit Planes(size_t n) : n(n), numbers(zeros(n)) {}
    float* get() const { return numbers.get(); }
    void clear() { std::fill_n(get(), n, 0.f); }
};

// Filters in the order in which they are read: (outputs / OUTPUTS, inputs, taps, OUTPUTS), from weight(output, input, tap).
template <class Weight>
Buffer packed(int outputs, int inputs, int taps, Weight weight) {
    Buffer made = buffer(size_t(outputs) * inputs * taps);
    float* to = made.get();
    for (int block = 0; block < outputs; block += OUTPUTS)
        for (int c = 0; c < inputs; c++)
            for (int t = 0; t < taps; t++)
                for (int k = 0; k < OUTPUTS; k++) *to++ = weight(block + k, c, t);
    return made;
}

// Planes of some images -> OUTPUTS planes of sums, window.places() apart.
void correlate(const Window& window, int images, const float* planes, int channels, const float* weights, float* sums) {
    const int *offsets = window.offsets.data(), taps = window.taps();
    int64_t places = window.places(images), apart = window.places();
    for (int64_t p = 0; p < places; p += PLACES) {
        Lanes sum[OUTPUTS][VECTORS] = {};
        const float* weight = weights;
        for (int c = 0; c < channels; c++) {
            const float* plane = planes + c * window.plane + p;
            for (int t = 0; t < taps; t++, weight += OUTPUTS) {
                Lanes pixels[VECTORS];
                for (int v = 0; v < VECTORS; v++) pixels[v] = load(plane + offsets[t] + v * LANES);
#pragma GCC unroll 4
                for (int k = 0; k < OUTPUTS; k++)
                    for (int v = 0; v < VECTORS; v++) sum[k][v] += weight[k] * pixels[v];
            }
        }
        for (int k = 0; k < OUTPUTS; k++)
            for (int v = 0; v < VECTORS; v++) store(sums + k * apart + p + v * LANES, sum[k][v]);
    }
}

// OUTPUTS planes of gradients times the pixels at TAPS taps, summed over n places: += into[output * step + tap].
template <int TAPS>
inline void add_products(const float* gradients, size_t apart, const float* plane, const int* offsets, int64_t n,
                         float* into, size_t step) {
    Lanes sum[OUTPUTS][TAPS] = {};
    for (int64_t p = 0; p < n; p += LANES) {
        Lanes pixels[TAPS];
        for (int t = 0; t < TAPS; t++) pixels[t] = load(plane + offsets[t] + p);
#pragma GCC unroll 4
        for (int k = 0; k < OUTPUTS; k++) {
            Lanes gradient = load(gradients + k * apart + p);
            for (int t = 0; t < TAPS; t++) sum[k][t] += gradient * pixels[t];
        }
    }
    for (int k = 0; k < OUTPUTS; k++)
        for (int t = 0; t < TAPS; t++) into[k * step + t] += total(sum[k][t]);
}

// What planes of some images add to the gradients (outputs, channels, taps) of filters; those of the outputs stand in
// planes that are `apart` numbers apart, with zeros between rows.
void add_filter_gradients(const Window& window, int images, const float* planes, int channels, const float* gradients,
                          size_t apart, int outputs, float* into) {
    int taps = window.taps();
    const int* offsets = window.offsets.data();
    size_t step = size_t(channels) * taps;
    for (int64_t first = 0; first < window.places(images); first += MOST) {
        int64_t n = std::min<int64_t>(MOST, window.places(images) - first);
        for (int block = 0; block < outputs; block += OUTPUTS)
            for (int c = 0; c < channels; c++) {
                const float *given = gradients + block * apart + first, *plane = planes + c * window.plane + first;
                float* to = into + block * step + c * taps;
                int t = 0;
                for (; t + 3 <= taps; t += 3) add_products<3>(given, apart, plane, offsets + t, n, to + t, step);
                for (; t < taps; t++) add_products<1>(given, apart, plane, offsets + t, n, to + t, step);
            }
    }
}

// OUTPUTS planes of sums -> channels of an image's map, from write(sum, output).
template <class Write>
inline void gather(const Window& window, const float* sums, float* y, Write write) {
    for (int k = 0; k < OUTPUTS; k++)
        for (int row = 0; row < window.height; row++, y += window.width) {
            const float* from = sums + k * window.places() + row * window.row();
            for (int i = 0; i < window.width; i++) y[i] = write(from[i], k);
        }
}

// Where n numbers pass ReLU, one bit each: all but those that are zero or less. For every 16 of them there are two bytes,
// whatever the instruction set.
inline size_t masks_of(size_t n) { return (n + 15) / 16 * (16 / LANES); }
inline void note_passing(const float* x, size_t n, Mask* masks) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) *masks++ = where_passing(load(x + i));
    if (i == n) return;
    *masks = 0;
    for (int l = 0; i < n; i++, l++) *masks |= Mask(!(x[i] <= 0)) << l;
}

// The gradient of rectified channels (in its place without what does not pass) -> the inside of their planes; and its
// sums over pixels += sums.
void spread_gradient(const Window& window, const Mask* masks, float* gradient, int channels, float* inside, size_t apart,
                     float* sums) {
    size_t n = size_t(channels) * window.pixels(), i = 0;
    for (; i + LANES <= n; i += LANES) store(gradient + i, only(*masks++, load(gradient + i)));
    for (int l = 0; i < n; i++, l++) gradient[i] = *masks >> l & 1 ? gradient[i] : 0;
    for (int k = 0; k < channels; k++, inside += apart) {
        for (int row = 0; row < window.height; row++, gradient += window.width)
            std::copy_n(gradient, window.width, inside + row * window.row());
        sums[k] += float(sum_of(inside, window.image() - window.row() - 1));  // zeros stand between the rows
    }
}

}  // namespace

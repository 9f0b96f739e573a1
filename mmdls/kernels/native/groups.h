// Group normalisation, with another map added and ReLU where asked for: two sweeps over an image, forward and backward.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lanes.h"

namespace {

// Maps (N, pixels, C), C a multiple of 16, whose channels form groups.
struct Grouped {
    int64_t n, pixels;
    int channels, groups;

    size_t image() const { return size_t(pixels) * channels; }
    int members() const { return channels / groups; }
};

// For one image the sums, channel by channel, of a and of a * b, where read(place, a, b) reads half a vector of each. They
// are added up in double precision, since a variance may be small beside a mean.
template <class Read>
void sum_over_pixels(const Grouped& maps, double* sums, double* products, Read read) {
    constexpr int HALF = LANES / 2, HALVES = 16 / HALF, PIXELS = 64;  // pixels that stay in the first-level cache
    std::fill_n(sums, maps.channels, 0.);
    std::fill_n(products, maps.channels, 0.);
    for (int64_t first = 0; first < maps.pixels; first += PIXELS)
        for (int c = 0; c < maps.channels; c += HALVES * HALF) {
            Doubles sum[HALVES] = {}, product[HALVES] = {};
            for (int64_t p = first; p < std::min(first + PIXELS, maps.pixels); p++)
                for (int h = 0; h < HALVES; h++) {
                    Doubles a, b;
                    read(size_t(p) * maps.channels + c + h * HALF, a, b);
                    sum[h] += a;
                    product[h] += a * b;
                }
            for (int h = 0; h < HALVES; h++)
                for (int l = 0; l < HALF; l++) {
                    sums[c + h * HALF + l] += sum[h][l];
                    products[c + h * HALF + l] += product[h][l];
                }
        }
}

// write(place, channel) for every vector of an image.
template <class Write>
void each_vector(const Grouped& maps, Write write) {
    for (int64_t p = 0; p < maps.pixels; p++)
        for (int c = 0; c < maps.channels; c += LANES) write(size_t(p) * maps.channels + c, c);
}

// What one thread works with: numbers for each channel.
struct Channels {
    std::vector<double> sums, products;
    std::vector<float> scale, slope, shift;

    explicit Channels(int n) : sums(n), products(n), scale(n), slope(n), shift(n) {}
};

// The mean and 1 / deviation of each group of an image x, (2, groups), and scale and shift of each channel.
void find_scales(const Grouped& maps, Channels& own, const float* x, const float* weight, const float* bias,
                 double epsilon, double* moments) {
    sum_over_pixels(maps, own.sums.data(), own.products.data(), [=](size_t i, Doubles& a, Doubles& b) { a = b = load_half(x + i); });
    int members = maps.members();
    for (int g = 0; g < maps.groups; g++) {
        double sum = 0, square = 0, n = double(maps.pixels) * members;
        for (int c = g * members; c < (g + 1) * members; c++) sum += own.sums[c], square += own.products[c];
        double mean = sum / n, variance = square / n - mean * mean;
        double scale = 1 / std::sqrt((variance < 0 ? 0 : variance) + epsilon);
        moments[g] = mean;
        moments[maps.groups + g] = scale;
        for (int c = g * members; c < (g + 1) * members; c++) {
            own.scale[c] = float(scale * weight[c]);
            own.shift[c] = float(bias[c] - mean * scale * weight[c]);
        }
    }
}

// One image x, normalised, + added, with ReLU -> y; and its moments.
void normalise(const Grouped& maps, Channels& own, const float* x, const float* weight, const float* bias,
               double epsilon, const float* added, bool rectified, float* y, double* moments) {
    find_scales(maps, own, x, weight, bias, epsilon, moments);
    const float *scales = own.scale.data(), *shifts = own.shift.data();
    each_vector(maps, [=](size_t i, int c) {
        Lanes value = load(x + i) * load(scales + c) + load(shifts + c);
        if (added) value += load(added + i);
        store(y + i, rectified ? relu(value) : value);
    });
}

// Its gradients, from that of y: of x, of what was added (or null), and the sums (2, C) that the image adds to those of
// weight and bias. y is null without ReLU.
void differentiate(const Grouped& maps, Channels& own, const float* x, const float* weight, const float* y,
                   const float* gradient, const double* moments, float* into, float* into_added, double* parameters) {
    sum_over_pixels(maps, own.sums.data(), own.products.data(), [=](size_t i, Doubles& a, Doubles& b) {
        a = load_half(gradient + i);
        b = load_half(x + i);
        if (y) a = load_half(y + i) <= 0. ? Doubles{} : a;
    });
    int members = maps.members();
    for (int g = 0; g < maps.groups; g++) {
        double mean = moments[g], scale = moments[maps.groups + g], n = double(maps.pixels) * members, sum = 0, product = 0;
        for (int c = g * members; c < (g + 1) * members; c++) {
            double normalised = scale * (own.products[c] - mean * own.sums[c]);
            parameters[c] = normalised;
            parameters[maps.channels + c] = own.sums[c];
            sum += weight[c] * own.sums[c];
            product += weight[c] * normalised;
        }
        double slope = -scale * scale * product / n;
        for (int c = g * members; c < (g + 1) * members; c++) {
            own.scale[c] = float(scale * weight[c]);
            own.slope[c] = float(slope);
            own.shift[c] = float(-scale * sum / n - slope * mean);
        }
    }
    const float *scales = own.scale.data(), *slopes = own.slope.data(), *shifts = own.shift.data();
    each_vector(maps, [=](size_t i, int c) {
        Lanes value = load(gradient + i);
        if (y) value = load(y + i) <= 0.f ? Lanes{} : value;
        if (into_added) store(into_added + i, value);
        store(into + i, value * load(scales + c) + (load(x + i) * load(slopes + c) + load(shifts + c)));
    });
}

}  // namespace

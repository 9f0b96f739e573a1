// Two layers at once: the rows of the first map are computed when they are needed, and the second map is not kept.

#pragma once

#include <algorithm>
#include <cstring>

#include "tiles.h"

namespace {

// The first layer's map, relu(convolution + bias), of which a few rows are kept.
struct FirstLayer {
    Shape shape;
    int in_channels, channels;
    const float* bias;
    int kept;         // rows
    int row_width;    // pixels of a kept row: a zero, the map, zeros
    int image_width;  // pixels of a row of the padded image
    int next;         // the first row that was not computed yet
    Buffer image, rows;
    Buffer taps_of;   // filters (9, in_channels, channels)

    FirstLayer(const Shape& shape, const Filters& filters, const float* bias, int most)
        : shape(shape), in_channels(filters.ci), channels(filters.co), bias(bias) {
        int bands = most / shape.tiles_across() + 2;
        kept = std::min(bands, shape.tiles_down()) * TILE_H + 2;
        int computed = (shape.width + PIXELS_AT_ONCE - 1) / PIXELS_AT_ONCE * PIXELS_AT_ONCE;
        row_width = std::max(shape.tiles_across() * TILE_W, computed) + 2;
        image_width = computed + 2;
        image = buffer(size_t(shape.height + 2) * image_width * in_channels);
        rows = buffer(size_t(kept) * row_width * channels);
        taps_of = buffer(size_t(9) * in_channels * channels);
        for (int tap = 0; tap < 9; tap++)
            for (int k = 0; k < in_channels; k++)
                for (int c = 0; c < channels; c++)
                    taps_of[(tap * in_channels + k) * channels + c] =
                        filters.at(c, k)[tap / 3 * filters.step_y + tap % 3 * filters.step_x];
    }
    // Begin with a row of an image (H, W, in_channels).
    void start(const float* pixels, int first) {
        std::memset(image.get(), 0, sizeof(float) * (shape.height + 2) * image_width * in_channels);
        for (int y = 0; y < shape.height; y++)
            std::memcpy(image.get() + (size_t(y + 1) * image_width + 1) * in_channels,
                        pixels + size_t(y) * shape.width * in_channels, sizeof(float) * shape.width * in_channels);
        next = first;
    }
    float* row(int y) const { return rows.get() + size_t((y + kept) % kept) * row_width * channels; }
    const float* pixels_at(int y, int x) const { return image.get() + (size_t(y) * image_width + x) * in_channels; }
    const float* pixel(int64_t, int y, int x) const {
        if (y < 0 || y >= shape.height || x < 0 || x >= shape.width) return nullptr;
        return row(y) + size_t(x + 1) * channels;
    }
    template <int VECTORS>
    void compute(int y, int channel) {
        Lanes shift[VECTORS];
        for (int j = 0; j < VECTORS; j++) shift[j] = load(bias + channel + j * LANES);
        float* out = row(y) + channels + channel;
        for (int x = 0; x < shape.width; x += PIXELS_AT_ONCE, out += PIXELS_AT_ONCE * channels) {
            Lanes sums[PIXELS_AT_ONCE][VECTORS] = {};
            for (int tap = 0; tap < 9; tap++) {
                const float* from = pixels_at(y + tap / 3, x + tap % 3);
                for (int k = 0; k < in_channels; k++) {
                    const float* filter = taps_of.get() + (tap * in_channels + k) * channels + channel;
                    Lanes filters[VECTORS];
                    for (int j = 0; j < VECTORS; j++) filters[j] = load(filter + j * LANES);
#pragma GCC unroll 8
                    for (int i = 0; i < PIXELS_AT_ONCE; i++)
                        for (int j = 0; j < VECTORS; j++) sums[i][j] += from[i * in_channels + k] * filters[j];
                }
            }
            for (int i = 0; i < PIXELS_AT_ONCE; i++)
                for (int j = 0; j < VECTORS; j++) store(out + i * channels + j * LANES, relu(sums[i][j] + shift[j]));
        }
    }
    // Compute the rows before `last` that are missing.
    void until(int last) {
        for (; next < last; next++) {
            float* out = row(next);
            if (next < 0 || next >= shape.height) {
                std::memset(out, 0, sizeof(float) * row_width * channels);
                continue;
            }
            std::memset(out, 0, sizeof(float) * channels);
            int channel = 0;
            for (; channel + 2 * LANES <= channels; channel += 2 * LANES) compute<2>(next, channel);
            for (; channel < channels; channel += LANES) compute<1>(next, channel);
            std::memset(out + size_t(shape.width + 1) * channels, 0,
                        sizeof(float) * (row_width - shape.width - 1) * channels);
        }
    }
    void patch(const Tile& tile, int channel, Lanes* d) const {
        for (int i = 0; i < ROWS; i++) {
            const float* from = row(tile.y + i - 1) + size_t(tile.x) * channels + channel;
            for (int j = 0; j < COLUMNS; j++) d[i * COLUMNS + j] = load(from + j * channels);
        }
    }
};

// relu(output + bias) added up over the pixels, and where it was positive.
struct SumSink {
    const FirstLayer& source;
    const Filters& filters;
    const float* bias;
    double* sums;    // (C,)
    Mask* positive;  // (N, H, W, C / LANES), or null
    Lanes shift;
    Total total;

    void begin(int channel) {
        shift = load(bias + channel);
        total = Total();
    }
    void end(int channel) { total.add_to(sums + channel); }
    void take(const Tile& tile, int channel, Lanes* out) {
        if (!finite(out)) define(source, tile, channel, filters, out);
        const Shape& shape = source.shape;
        int rows = std::min(TILE_H, shape.height - tile.y), columns = std::min(TILE_W, shape.width - tile.x);
        Lanes sums[TILE_W] = {};
        for (int i = 0; i < rows; i++) {
            int64_t first = (tile.image * shape.height + tile.y + i) * shape.width + tile.x;
            for (int j = 0; j < columns; j++) {
                Lanes value = out[i * TILE_W + j] + shift;
                sums[j] += relu(value);
                if (positive) positive[((first + j) * filters.co + channel) / LANES] = where_positive(value);
            }
        }
        total.add((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
};

// The gradient of the first layer's map, turned into those of its filters (9, in_channels, C) and bias (C,).
struct FirstLayerGradient {
    const FirstLayer& layer;
    double *w, *bias;
    Lanes sums[9 * 3];
    Total total;

    void begin(int) {
        std::fill(sums, sums + 9 * 3, Lanes{});
        total = Total();
    }
    void end(int channel) {
        for (int i = 0; i < 9 * layer.in_channels; i++) {
            double* to = w + i * layer.channels + channel;
            for (int l = 0; l < LANES; l++) to[l] += sums[i][l];
        }
        total.add_to(bias + channel);
    }
    template <int IN>
    void add(const Tile& tile, int channel, const Lanes* out) {
        Lanes own[9 * IN], all = {};
        std::fill(own, own + 9 * IN, Lanes{});
        int rows = std::min(TILE_H, layer.shape.height - tile.y), columns = std::min(TILE_W, layer.shape.width - tile.x);
        for (int i = 0; i < rows; i++) {
            const float* map = layer.row(tile.y + i) + size_t(tile.x + 1) * layer.channels + channel;
            for (int j = 0; j < columns; j++, map += layer.channels) {
                Lanes gradient = load(map) > 0.f ? out[i * TILE_W + j] : Lanes{};
                all += gradient;
                for (int row = 0; row < 3; row++) {
                    const float* from = layer.pixels_at(tile.y + i + row, tile.x + j);
#pragma GCC unroll 9
                    for (int k = 0; k < 3 * IN; k++) own[row * 3 * IN + k] += from[k] * gradient;
                }
            }
        }
        for (int i = 0; i < 9 * IN; i++) sums[i] += own[i];
        total.add(all);
    }
    void take(const Tile& tile, int channel, const Lanes* out) {
        switch (layer.in_channels) {
            case 1: return add<1>(tile, channel, out);
            case 2: return add<2>(tile, channel, out);
            default: return add<3>(tile, channel, out);
        }
    }
};

}  // namespace

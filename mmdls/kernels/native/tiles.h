// Tiles of maps: where they come from, how they are transformed, and where they go.

#pragma once

#include <algorithm>

#include "filters.h"

namespace {

struct Shape {
    int64_t n;
    int height, width;
    int tiles_down() const { return (height + TILE_H - 1) / TILE_H; }
    int tiles_across() const { return (width + TILE_W - 1) / TILE_W; }
    int64_t tiles() const { return int64_t(tiles_down()) * tiles_across(); }
};

// One tile: of which image, and its first output pixel.
struct Tile {
    int64_t image;
    int y, x;
};

inline Tile tile_of(const Shape& shape, int64_t index) {
    int across = shape.tiles_across();
    int64_t in_image = index % shape.tiles();
    return {index / shape.tiles(), int(in_image / across) * TILE_H, int(in_image % across) * TILE_W};
}

// A map (N, H, W, C) in memory.
struct Map {
    const float* data;
    Shape shape;
    int channels;

    const float* pixel(int64_t image, int y, int x) const {
        if (y < 0 || y >= shape.height || x < 0 || x >= shape.width) return nullptr;
        return data + ((image * shape.height + y) * shape.width + x) * channels;
    }
    void patch(const Tile& tile, int channel, Lanes* d) const {
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) {
                const float* from = pixel(tile.image, tile.y + i - 1, tile.x + j - 1);
                d[i * COLUMNS + j] = from ? load(from + channel) : Lanes{};
            }
    }
    void gradient(const Tile& tile, int channel, Lanes* d) const {
        for (int i = 0; i < TILE_H; i++)
            for (int j = 0; j < TILE_W; j++) {
                const float* from = pixel(tile.image, tile.y + i, tile.x + j);
                d[i * COLUMNS + j] = from ? load(from + channel) : Lanes{};
            }
    }
};

// The gradient (N, C) of the sums over a map's pixels, where the map is positive.
struct SumGradient {
    const float* data;
    const Mask* positive;
    Shape shape;
    int channels;

    Lanes pixel(int64_t image, int y, int x, int channel, Lanes gradient) const {
        if (y < 0 || y >= shape.height || x < 0 || x >= shape.width) return Lanes{};
        size_t place = ((size_t(image) * shape.height + y) * shape.width + x) * (channels / LANES) + channel / LANES;
        return only(positive[place], gradient);
    }
    void patch(const Tile& tile, int channel, Lanes* d) const {
        Lanes gradient = load(data + tile.image * channels + channel);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++)
                d[i * COLUMNS + j] = pixel(tile.image, tile.y + i - 1, tile.x + j - 1, channel, gradient);
    }
    void gradient(const Tile& tile, int channel, Lanes* d) const {
        Lanes gradient = load(data + tile.image * channels + channel);
        for (int i = 0; i < TILE_H; i++)
            for (int j = 0; j < TILE_W; j++)
                d[i * COLUMNS + j] = pixel(tile.image, tile.y + i, tile.x + j, channel, gradient);
    }
};

template <class Source>
void transform_input(const Source& source, const Tile* tiles, int n, int most, float* v) {
    int channels = source.channels;
    for (int t = 0; t < n; t++)
        for (int c = 0; c < channels; c += LANES) {
            Lanes d[FREQUENCIES];
            source.patch(tiles[t], c, d);
            for (int j = 0; j < COLUMNS; j++) input_4(d + j, COLUMNS);
            for (int i = 0; i < ROWS; i++) {
                input_6(d + i * COLUMNS);
                for (int j = 0; j < COLUMNS; j++)
                    store(v + (i * COLUMNS + j) * apart(size_t(most) * channels) + t * channels + c, d[i * COLUMNS + j]);
            }
        }
}

// Channels from `first` on. Also adds up the gradients of all pixels, which is the gradient of a bias.
template <class Source>
void transform_gradient(const Source& source, int first, int channels, const Tile* tiles, int n, int most, float* v,
                        double* summed) {
    for (int c = 0; c < channels; c += LANES) {
        Total total;
        for (int t = 0; t < n; t++) {
            Lanes d[FREQUENCIES];
            source.gradient(tiles[t], first + c, d);
            Lanes sums[TILE_W];
            for (int j = 0; j < TILE_W; j++) sums[j] = d[j] + d[COLUMNS + j];
            total.add((sums[0] + sums[1]) + (sums[2] + sums[3]));
            for (int j = 0; j < TILE_W; j++) gradient_4(d + j, COLUMNS);
            for (int i = 0; i < ROWS; i++) {
                Lanes out[COLUMNS];
                gradient_6(d + i * COLUMNS, out);
                for (int j = 0; j < COLUMNS; j++)
                    store(v + (i * COLUMNS + j) * apart(size_t(most) * channels) + t * channels + c, out[j]);
            }
        }
        total.add_to(summed + c);
    }
}

// Each tile's output (2, 4) of LANES channels, from `first` on, goes to sink.take(tile, channel, output).
template <class Sink>
void transform_output(const float* m, const Tile* tiles, int n, int most, int first, int channels, Sink& sink) {
    for (int c = 0; c < channels; c += LANES) {
        sink.begin(first + c);
        for (int t = 0; t < n; t++) {
            Lanes across[ROWS][TILE_W], out[TILE_H * TILE_W];
            for (int i = 0; i < ROWS; i++) {
                Lanes d[COLUMNS];
                for (int j = 0; j < COLUMNS; j++)
                    d[j] = load(m + (i * COLUMNS + j) * apart(size_t(most) * channels) + t * channels + c);
                output_4(d, across[i]);
            }
            for (int j = 0; j < TILE_W; j++) {
                Lanes sum = across[1][j] + across[2][j];
                out[j] = across[0][j] + sum;
                out[TILE_W + j] = (across[1][j] - across[2][j]) + across[3][j];
            }
            sink.take(tiles[t], first + c, out);
        }
        sink.end(first + c);
    }
}

inline bool finite(const Lanes* out) {
    return finite(((out[0] + out[1]) + (out[2] + out[3])) + ((out[4] + out[5]) + (out[6] + out[7])));
}

// The definition, for tiles whose numbers are infinite, not a number or too large to be transformed.
template <class Source>
void define(const Source& source, const Tile& tile, int channel, const Filters& filters, Lanes* out) {
    for (int i = 0; i < TILE_H; i++)
        for (int j = 0; j < TILE_W; j++) {
            Lanes sum = {};
            for (int tap = 0; tap < 9; tap++) {
                const float* from = source.pixel(tile.image, tile.y + i + tap / 3 - 1, tile.x + j + tap % 3 - 1);
                int64_t step = tap / 3 * filters.step_y + tap % 3 * filters.step_x;
                for (int k = 0; from && k < filters.ci; k++)
                    for (int l = 0; l < LANES; l++) sum[l] += from[k] * filters.at(channel + l, k)[step];
            }
            out[i * TILE_W + j] = sum;
        }
}

// Output + bias, with or without ReLU, into a map (N, H, W, C).
struct MapSink {
    const Map& source;
    const Filters& filters;
    const float* bias;
    bool rectified;
    float* data;
    Lanes shift;

    void begin(int channel) { shift = bias ? load(bias + channel) : Lanes{}; }
    void end(int) {}
    void take(const Tile& tile, int channel, Lanes* out) {
        if (!finite(out)) define(source, tile, channel, filters, out);
        const Shape& shape = source.shape;
        int rows = std::min(TILE_H, shape.height - tile.y), columns = std::min(TILE_W, shape.width - tile.x);
        for (int i = 0; i < rows; i++) {
            int64_t first = (tile.image * shape.height + tile.y + i) * shape.width + tile.x;
            for (int j = 0; j < columns; j++) {
                Lanes value = out[i * TILE_W + j] + shift;
                store(data + (first + j) * filters.co + channel, rectified ? relu(value) : value);
            }
        }
    }
};

}  // namespace

// A small network that halves its maps with little aliasing, and the sums over the pixels of its last map.
//
// The first layer is a convolution of 5 x 5 with stride 2 and ReLU. Each stage blurs the map by (1, 2, 1) in both
// directions at every second pixel, normalises the blurred one over channels and pixels, and puts beside it a convolution
// of 3 x 3 with ReLU of the normalised one. Some images at a time go through all layers, each in a lane of its own: maps
// stay in the cache, and no image is computed together with another.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "across.h"
#include "memory.h"

namespace {

constexpr int OUTPUTS = 4;  // outputs whose sums stay in the registers

// A convolution, and the map that it finds. The first layer reads the image, each further one a blurred map.
struct Layer {
    int c, co, height, width;  // channels that it reads and finds; its map
    int before_height, before_width;  // what it halves
    const float *norm_weight, *norm_bias, *filters, *bias;  // (c,), (c,), null in the first layer; (co, c, ..), (co,)

    bool is_first() const { return !norm_weight; }
    int taps() const { return is_first() ? 25 : 9; }
    size_t pixels() const { return size_t(height) * width; }
    size_t blurred() const { return is_first() ? 0 : c * pixels(); }
    size_t found() const { return co * pixels(); }
    int channels() const { return is_first() ? co : c + co; }
    // What it reads of a strip of its map stands in planes, in a border of zeros; so do gradients of all that a stage finds.
    int across() const { return is_first() ? 5 : 3; }
    int step() const { return is_first() ? 2 : 1; }
    int strip() const { return std::min(height, std::max(4, 256 / width)); }  // rows, so that planes stay in the cache
    int rows() const { return step() * (strip() - 1) + across(); }
    size_t row() const { return step() * (width - 1) + across(); }
    size_t plane() const { return rows() * row(); }
    size_t found_row() const { return is_first() ? width : width + 2; }
    size_t found_plane() const { return is_first() ? pixels() : (height + 2) * found_row(); }
    size_t inside() const { return found_row() + 1; }
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

// Images (n, ci, height, width). Parameters in the order of the network: filters and bias of the first layer; of each
// stage the normalisation's weight and bias, filters and bias.
struct Antialiased {
    int64_t n;
    int height, width;
    std::vector<Layer> layers;
    double epsilon;
    std::vector<Buffer> filters{};  // packed, of all layers: forward, or those that give the gradient of what is convolved

    Antialiased(int64_t n, int ci, int height, int width, int depth, const int* found, const float* const* parameters,
                double epsilon, bool is_forward)
        : n(n), height(height), width(width), epsilon(epsilon) {
        int channels = ci, h = height, w = width;
        for (int i = 0; i < depth; i++) {
            const float* const* own = i ? parameters + 4 * i - 2 : parameters - 2;
            layers.push_back(Layer{channels, found[i], (h + 1) / 2, (w + 1) / 2, h, w, i ? own[0] : nullptr,
                                   i ? own[1] : nullptr, own[2], own[3]});
            const Layer& layer = layers.back();
            const float* weight = layer.filters;
            int c = layer.c, taps = layer.taps();
            if (is_forward)
                filters.push_back(packed(layer.co, c, taps, [=](int k, int j, int t) { return weight[(k * c + j) * taps + t]; }));
            else if (i)
                filters.push_back(packed(c, layer.co, 9, [=](int j, int k, int t) { return weight[(k * c + j) * 9 + 8 - t]; }));
            else
                filters.push_back(buffer(0));
            channels = layer.channels(), h = layer.height, w = layer.width;
        }
    }
    const Layer& last() const { return layers.back(); }
    size_t image() const { return size_t(layers[0].c) * height * width; }
    template <class Size>
    size_t largest(Size size) const {
        size_t most = 0;
        for (const Layer& layer : layers) most = std::max(most, size_t(size(layer)));
        return most;
    }
    size_t blurred() const {  // numbers of all blurred maps of an image
        size_t sum = 0;
        for (const Layer& layer : layers) sum += layer.blurred();
        return sum;
    }
    size_t found() const {  // numbers that pass ReLU or do not
        size_t sum = 0;
        for (const Layer& layer : layers) sum += layer.found();
        return sum;
    }
    std::vector<size_t> sizes() const {  // of the parameters
        std::vector<size_t> sizes;
        for (const Layer& layer : layers) {
            if (!layer.is_first()) sizes.insert(sizes.end(), {size_t(layer.c), size_t(layer.c)});
            sizes.insert(sizes.end(), {size_t(layer.co) * layer.c * layer.taps(), size_t(layer.co)});
        }
        return sizes;
    }
    size_t parameters() const {
        size_t sum = 0;
        for (size_t size : sizes()) sum += size;
        return sum;
    }
    // Images from one to the next of some parts that sum up gradients on their own, whatever the number of threads: not
    // so few that adding up takes longer.
    int64_t part() const {
        int64_t stacks = (n + Widest::IMAGES - 1) / Widest::IMAGES, least = 4096 / (int64_t(height) * width);
        return std::max<int64_t>({1, least, (stacks + 15) / 16}) * Widest::IMAGES;
    }
    int64_t parts() const { return (n + part() - 1) / part(); }
};

// What is kept of images for their gradient: blurred maps (images, net.blurred()), their moments (images, stages, 2), and
// where layers pass ReLU, one bit (images, net.found()); each stack of images on its own, in the order of its lanes.
struct Remembered {
    float* blurred;
    double* moments;
    uint8_t* masks;

    Remembered of(const Antialiased& net, int64_t image) const {
        return {blurred + image * net.blurred(), moments + image * 2 * (net.layers.size() - 1),
                masks ? masks + image / 8 * net.found() : nullptr};
    }
};

// What one thread works with, in vectors across A::IMAGES images.
template <class A>
struct Stack {
    typedef typename A::Pixel Pixel;
    typedef typename A::Mask Mask;
    const Antialiased& net;
    std::vector<Buffer> planes{};  // what each layer reads, in a border of zeros
    Buffer rows, norms;
    std::vector<Sum<A>> totals{};

    static Buffer zeros_of(size_t n) { return zeros(n * A::IMAGES); }
    static Pixel* at(const Buffer& numbers) { return reinterpret_cast<Pixel*>(numbers.get()); }

    explicit Stack(const Antialiased& net)
        : net(net), rows(zeros_of(net.largest([](const Layer& l) { return 3 * l.channels() * l.width; }))),
          norms(zeros_of(2 * net.last().channels())), totals(net.last().channels()) {
        for (const Layer& layer : net.layers) planes.push_back(zeros_of(layer.c * layer.plane()));
    }

    // What a layer reads for the strip of its map that begins at row y; write(channel, row, to) gives rows that exist.
    template <class Write>
    const Pixel* strip(int s, int y, int n_rows, Write write) {
        const Layer& layer = net.layers[s];
        int border = layer.across() / 2, first = layer.step() * y - border;
        for (int c = 0; c < layer.c; c++)
            for (int i = 0; i < layer.rows(); i++) {
                Pixel* to = at(planes[s]) + c * layer.plane() + i * layer.row();
                if (first + i < 0 || first + i >= n_rows)
                    std::fill_n(to, layer.row(), Pixel{});
                else
                    write(c, first + i, to + border);
            }
        return at(planes[s]);
    }
    // Of images themselves, and of blurred maps, which are normalised.
    const Pixel* strip_of_images(const float* x, int images, int y) {
        return strip(0, y, net.height, [&](int c, int row, Pixel* to) {
            read_row<A>(x + (size_t(c) * net.height + row) * net.width, net.image(), images, net.width, to);
        });
    }
    const Pixel* strip_of_blurred(int s, const Pixel* blurred, int y) {
        const Layer& layer = net.layers[s];
        return strip(s, y, layer.height, [&](int c, int row, Pixel* to) {
            Pixel scale = at(norms)[2 * c], shift = at(norms)[2 * c + 1];
            const Pixel* from = blurred + (size_t(c) * layer.height + row) * layer.width;
            for (int i = 0; i < layer.width; i++) to[i] = from[i] * scale + shift;
        });
    }
    // What the normalisation multiplies channels by and adds to them, from moments (2, images).
    void find_norms(const Layer& layer, const double* moments) {
        for (int c = 0; c < layer.c; c++)
            for (int l = 0; l < A::IMAGES; l++) {
                double scale = moments[A::IMAGES + l] * layer.norm_weight[c];
                at(norms)[2 * c][l] = float(scale);
                at(norms)[2 * c + 1][l] = float(layer.norm_bias[c] - moments[l] * scale);
            }
    }

    void forward(const float* x, int images, Pixel* blurred, double* moments, Mask* masks, float* found);
};

// OUTPUTS sums for each of P pixels beside each other, over channels and TAPS x TAPS pixels.
template <class A, int TAPS, int STEP, int P>
inline void correlate(const typename A::Pixel* from, size_t row, size_t plane, int channels, const float* weights,
                      typename A::Pixel (&sum)[OUTPUTS][P]) {
    for (int c = 0; c < channels; c++, from += plane)
        for (int y = 0; y < TAPS; y++)
            for (int x = 0; x < TAPS; x++, weights += OUTPUTS) {
                typename A::Pixel pixels[P];
                for (int p = 0; p < P; p++) pixels[p] = from[y * row + x + p * STEP];
#pragma GCC unroll 4
                for (int k = 0; k < OUTPUTS; k++)
                    for (int p = 0; p < P; p++) sum[k][p] += weights[k] * pixels[p];
            }
}

// write(output, pixel, sum) for one row of outputs.
template <class A, int TAPS, int STEP, class Write>
inline void correlate_row(const typename A::Pixel* from, size_t row, size_t plane, int channels, const float* weights,
                          int outputs, int width, Write write) {
    for (int k = 0; k < outputs; k += OUTPUTS, weights += OUTPUTS * channels * TAPS * TAPS) {
        int x = 0;
        for (; x + PIXELS <= width; x += PIXELS) {
            typename A::Pixel sum[OUTPUTS][PIXELS] = {};
            correlate<A, TAPS, STEP, PIXELS>(from + x * STEP, row, plane, channels, weights, sum);
            for (int j = 0; j < OUTPUTS; j++)
                for (int p = 0; p < PIXELS; p++) write(k + j, x + p, sum[j][p]);
        }
        for (; x < width; x++) {
            typename A::Pixel sum[OUTPUTS][1] = {};
            correlate<A, TAPS, STEP, 1>(from + x * STEP, row, plane, channels, weights, sum);
            for (int j = 0; j < OUTPUTS; j++) write(k + j, x, sum[j][0]);
        }
    }
}

// One row of a channel, blurred, from the rows above, here and below, of which those beyond the map are null.
template <class A>
inline void blur_row(const typename A::Pixel* above, const typename A::Pixel* here, const typename A::Pixel* below,
                     int width, typename A::Pixel* to) {
    typedef typename A::Pixel Pixel;
    auto at = [=](int i) {
        Pixel sum = .5f * here[i];
        if (above) sum += .25f * above[i];
        if (below) sum += .25f * below[i];
        return sum;
    };
    Pixel left{};
    for (int i = 0; i < width; i += 2) {
        Pixel right = i + 1 < width ? at(i + 1) : Pixel{};
        to[i / 2] = .5f * at(i) + .25f * (left + right);
        left = right;
    }
}

// The gradient (c, height, width) of what was blurred, from that of the blurred (c, h, w).
template <class A>
void blur_gradient(const typename A::Pixel* gradient, int c, int height, int width, typename A::Pixel* into) {
    typedef typename A::Pixel Pixel;
    int h = (height + 1) / 2, w = (width + 1) / 2;
    for (; c > 0; c--, gradient += size_t(h) * w)
        for (int row = 0; row < height; row++, into += width) {
            const Pixel* one = gradient + size_t(row / 2) * w;
            bool both = row % 2 && row + 1 < height;
            auto at = [=](int i) { return row % 2 ? .25f * (both ? one[i] + one[w + i] : one[i]) : .5f * one[i]; };
            Pixel here = at(0);
            for (int i = 0; i < width; i += 2) {
                Pixel next = i / 2 + 1 < w ? at(i / 2 + 1) : Pixel{};
                into[i] = .5f * here;
                if (i + 1 < width) into[i + 1] = .25f * (here + next);
                here = next;
            }
        }
}

// Each image's mean over n numbers and 1 / their deviation: (2, images).
template <class A>
void find_moments(const typename A::Pixel* x, size_t n, double epsilon, double* moments) {
    Sum<A> sum, squares;
    for (size_t i = 0; i < n; i++) sum.add(x[i]), squares.add_product(x[i], x[i]);
    for (int l = 0; l < A::IMAGES; l++) {
        double mean = sum[l] / double(n), variance = squares[l] / double(n) - mean * mean;
        moments[l] = mean;
        moments[A::IMAGES + l] = 1 / std::sqrt((variance < 0 ? 0 : variance) + epsilon);
    }
}

// The sums over pixels of some images; what is kept of them if masks are asked for, and blurred maps in any case.
template <class A>
void Stack<A>::forward(const float* x, int images, Pixel* blurred, double* moments, Mask* masks, float* found) {
    std::fill(totals.begin(), totals.end(), Sum<A>{});
    for (size_t s = 0; s < net.layers.size(); s++) {
        const Layer& layer = net.layers[s];
        bool is_last = s + 1 == net.layers.size();
        int channels = layer.channels(), kept = layer.is_first() ? 0 : layer.c, height = layer.height, width = layer.width;
        Pixel* next = blurred + layer.blurred();  // this map, blurred
        if (!layer.is_first()) {
            find_moments<A>(blurred, layer.blurred(), net.epsilon, moments);
            find_norms(layer, moments);
        }
        auto row_of = [&](int y) { return at(rows) + size_t(y % 3) * channels * width; };
        for (int y = 0; y < height; y++) {
            Pixel* row = row_of(y);
            for (int c = 0; c < kept; c++) std::copy_n(blurred + (size_t(c) * height + y) * width, width, row + c * width);
            auto write = [&](int k, int i, Pixel sum) {
                Pixel value = sum + layer.bias[k];
                value = value <= 0.f ? Pixel{} : value;  // NaN stays NaN
                row[(kept + k) * width + i] = value;
                if (masks) masks[(size_t(k) * height + y) * width + i] = A::where_passing(value);
            };
            int below = y % layer.strip();
            if (!below && layer.is_first()) strip_of_images(x, images, y);
            if (!below && !layer.is_first()) strip_of_blurred(int(s), blurred, y);
            const Pixel* from = at(planes[s]) + below * layer.step() * layer.row();
            const float* weights = net.filters[s].get();
            if (layer.is_first())
                correlate_row<A, 5, 2>(from, layer.row(), layer.plane(), layer.c, weights, layer.co, width, write);
            else
                correlate_row<A, 3, 1>(from, layer.row(), layer.plane(), layer.c, weights, layer.co, width, write);
            if (is_last) {
                for (int c = 0; c < channels; c++)
                    for (int i = 0; i < width; i++) totals[c].add(row[c * width + i]);
            } else if (y % 2 || y + 1 == height) {
                int middle = y / 2 * 2, h = (height + 1) / 2, w = (width + 1) / 2;
                for (int c = 0; c < channels; c++)
                    blur_row<A>(middle ? row_of(middle - 1) + c * width : nullptr, row_of(middle) + c * width,
                                y > middle ? row_of(y) + c * width : nullptr, width, next + (size_t(c) * h + y / 2) * w);
            }
        }
        blurred = next;
        if (!layer.is_first()) moments += 2 * A::IMAGES;
        if (masks) masks += layer.found();
    }
    for (int l = 0; l < images; l++)
        for (int c = 0; c < net.last().channels(); c++) found[size_t(l) * net.last().channels() + c] = float(totals[c][l]);
}

// C x OUTPUTS planes of gradients times the pixels at TAPS taps beside each other, summed over n pixels of a row.
template <class A, int C, int TAPS, int STEP>
struct Products {
    typename A::Pixel sum[C][OUTPUTS][TAPS] = {};

    void add(const typename A::Pixel* gradients, size_t gradient_plane, const typename A::Pixel* from, size_t plane, int n) {
        for (int i = 0; i < n; i++) {
            typename A::Pixel gradient[OUTPUTS];
            for (int k = 0; k < OUTPUTS; k++) gradient[k] = gradients[k * gradient_plane + i];
#pragma GCC unroll 2
            for (int c = 0; c < C; c++)
#pragma GCC unroll 5
                for (int t = 0; t < TAPS; t++) {
                    typename A::Pixel pixel = from[c * plane + i * STEP + t];
                    for (int k = 0; k < OUTPUTS; k++) sum[c][k][t] += gradient[k] * pixel;
                }
        }
    }
};

// What some rows add to the gradients (outputs, channels, TAPS, TAPS) of filters.
template <class A, int C, int TAPS, int STEP>
void add_filter_gradients(const typename A::Pixel* gradients, size_t gradient_row, size_t gradient_plane, int outputs,
                          const typename A::Pixel* from, size_t row, size_t plane, int channels, int height, int width,
                          typename A::Pixel* into) {
    for (int k = 0; k < outputs; k += OUTPUTS)
        for (int c = 0; c < channels; c += C)
            for (int tap = 0; tap < TAPS; tap++) {
                Products<A, C, TAPS, STEP> products;
                for (int y = 0; y < height; y++)
                    products.add(gradients + k * gradient_plane + y * gradient_row, gradient_plane,
                                 from + c * plane + (y * STEP + tap) * row, plane, width);
                for (int b = 0; b < C; b++)
                    for (int j = 0; j < OUTPUTS; j++)
                        for (int t = 0; t < TAPS; t++)
                            into[((size_t(k + j) * channels + c + b) * TAPS + tap) * TAPS + t] += products.sum[b][j][t];
            }
}

#ifdef __AVX512F__
constexpr int CHANNELS = 2;  // whose products stay in the registers
#else
constexpr int CHANNELS = 1;
#endif

// The same for gradients: with those of all parameters, each image's own.
template <class A>
struct GradientStack : Stack<A> {
    typedef typename A::Pixel Pixel;
    typedef typename A::Mask Mask;
    using Stack<A>::net;
    using Stack<A>::at;
    std::vector<Buffer> outputs{};  // gradients of what each stage finds, in a border of zeros
    Buffer map, blurred, parameters;

    explicit GradientStack(const Antialiased& net)
        : Stack<A>(net), map(this->zeros_of(net.largest([](const Layer& l) { return l.channels() * l.pixels(); }))),
          blurred(this->zeros_of(net.largest([](const Layer& l) { return l.blurred(); }))), parameters(nullptr, Free{0}) {
        for (const Layer& layer : net.layers)
            outputs.push_back(this->zeros_of(layer.is_first() ? 0 : layer.co * layer.found_plane()));
        parameters = this->zeros_of(net.parameters());
    }

    void backward(const float* x, int images, const Pixel* kept_blurred, const double* moments, const Mask* masks,
                  const float* gradient);
    void differentiate_norm(const Layer& layer, const Pixel* kept, const double* moments, const Pixel* carried,
                            Pixel* of_weight, Pixel* of_bias);
    // Sums over images -> += into, and everything is zero again.
    void flush(float* into) {
        for (size_t i = 0, all = net.parameters(); i < all; i++) {
            into[i] += over_images<A>(at(parameters)[i]);
            at(parameters)[i] = Pixel{};
        }
    }
};

// The gradient of blurred channels, from that of what they are normalised to, in its place; `carried` is what comes to it
// from the map itself. What the images add to the gradients of the normalisation's weight and bias.
template <class A>
void GradientStack<A>::differentiate_norm(const Layer& layer, const Pixel* kept, const double* moments,
                                          const Pixel* carried, Pixel* of_weight, Pixel* of_bias) {
    const double *mean = moments, *scale = moments + A::IMAGES;
    double n = double(layer.blurred()), sum[A::IMAGES] = {}, product[A::IMAGES] = {};
    size_t pixels = layer.pixels();
    Pixel* gradient = at(blurred);
    for (int c = 0; c < layer.c; c++) {
        Sum<A> own, own_product;
        for (size_t i = c * pixels; i < (c + 1) * pixels; i++)
            own.add(gradient[i]), own_product.add_product(gradient[i], kept[i]);
        for (int l = 0; l < A::IMAGES; l++) {
            double normalised = scale[l] * (own_product[l] - mean[l] * own[l]);
            of_weight[c][l] += float(normalised);
            of_bias[c][l] += float(own[l]);
            sum[l] += layer.norm_weight[c] * own[l];
            product[l] += layer.norm_weight[c] * normalised;
        }
    }
    Pixel by_value, shift;
    for (int l = 0; l < A::IMAGES; l++) {
        double slope = -scale[l] * scale[l] * product[l] / n;
        by_value[l] = float(slope);
        shift[l] = float(-scale[l] * sum[l] / n - slope * mean[l]);
    }
    for (int c = 0; c < layer.c; c++) {
        Pixel own;
        for (int l = 0; l < A::IMAGES; l++) own[l] = float(scale[l] * layer.norm_weight[c]);
        for (size_t i = c * pixels; i < (c + 1) * pixels; i++)
            gradient[i] = gradient[i] * own + (kept[i] * by_value + shift) + carried[i];
    }
}

// What some images add to the gradients of the parameters, from those of their sums; what was kept of them is read.
template <class A>
void GradientStack<A>::backward(const float* x, int images, const Pixel* kept_blurred, const double* moments,
                                const Mask* masks, const float* gradient) {
    const Layer& last = net.last();
    for (int c = 0; c < last.channels(); c++) {
        Pixel own{};
        for (int l = 0; l < images; l++) own[l] = gradient[size_t(l) * last.channels() + c];
        std::fill_n(at(map) + c * last.pixels(), last.pixels(), own);
    }
    size_t first = net.parameters();  // of those of a layer
    kept_blurred += net.blurred();
    moments += 2 * A::IMAGES * (net.layers.size() - 1);
    masks += net.found();
    for (size_t s = net.layers.size(); s-- > 0;) {
        const Layer& layer = net.layers[s];
        int height = layer.height, width = layer.width, kept = layer.is_first() ? 0 : layer.c;
        size_t row = layer.found_row(), plane = layer.found_plane();
        size_t filters = size_t(layer.co) * layer.c * layer.taps();
        Pixel* inside = layer.is_first() ? at(map) : at(outputs[s]) + layer.inside();
        masks -= layer.found();
        first -= layer.co;
        for (int k = 0; k < layer.co; k++) {
            Sum<A> sum;
            for (int y = 0; y < height; y++)
                for (int i = 0; i < width; i++) {
                    size_t pixel = (size_t(k) * height + y) * width + i;
                    Pixel own = A::only(masks[pixel], at(map)[kept * layer.pixels() + pixel]);
                    inside[k * plane + y * row + i] = own;
                    sum.add(own);
                }
            for (int l = 0; l < A::IMAGES; l++) at(parameters)[first + k][l] += float(sum[l]);
        }
        first -= filters;
        Pixel* into = at(parameters) + first;
        kept_blurred -= layer.blurred();
        if (!layer.is_first()) this->find_norms(layer, moments -= 2 * A::IMAGES);
        for (int y = 0; y < height; y += layer.strip()) {
            int rows = std::min(layer.strip(), height - y);
            if (layer.is_first())
                add_filter_gradients<A, 1, 5, 2>(inside + y * row, row, plane, layer.co,
                                                 this->strip_of_images(x, images, y), layer.row(), layer.plane(), layer.c,
                                                 rows, width, into);
            else
                add_filter_gradients<A, CHANNELS, 3, 1>(inside + y * row, row, plane, layer.co,
                                                        this->strip_of_blurred(int(s), kept_blurred, y),
                                                        layer.row(), layer.plane(), layer.c, rows, width, into);
        }
        if (layer.is_first()) break;
        for (int y = 0; y < height; y++)
            correlate_row<A, 3, 1>(at(outputs[s]) + y * row, row, plane, layer.co, net.filters[s].get(), layer.c, width,
                                   [&](int c, int i, Pixel sum) {
                                       at(blurred)[(size_t(c) * height + y) * width + i] = sum;
                                   });
        first -= 2 * layer.c;
        differentiate_norm(layer, kept_blurred, moments, at(map), at(parameters) + first, at(parameters) + first + layer.c);
        blur_gradient<A>(at(blurred), layer.c, layer.before_height, layer.before_width, at(map));
    }
}

// All images, as many at once as a vector has lanes.
template <class A>
void forward(const Antialiased& net, const float* x, const Remembered& kept, float* sums, int threads) {
    struct State {
        Stack<A> stack;
        Buffer blurred;
        std::vector<double> moments;
    };
    std::vector<State> states;
    for (int i = 0; i < threads; i++)
        states.push_back(State{Stack<A>(net), buffer(kept.masks ? 0 : A::IMAGES * net.blurred()),
                               std::vector<double>(2 * A::IMAGES * net.layers.size())});
    divided((net.n + A::IMAGES - 1) / A::IMAGES, states, [&](State& own, int64_t first, int64_t last) {
        for (int64_t i = first * A::IMAGES; i < std::min(last * A::IMAGES, net.n); i += A::IMAGES) {
            Remembered to = kept.masks ? kept.of(net, i) : Remembered{own.blurred.get(), own.moments.data(), nullptr};
            own.stack.forward(x + i * net.image(), int(std::min<int64_t>(A::IMAGES, net.n - i)),
                              reinterpret_cast<typename A::Pixel*>(to.blurred), to.moments,
                              reinterpret_cast<typename A::Mask*>(to.masks), sums + i * net.last().channels());
        }
    });
}

template <class A>
void backward(const Antialiased& net, const float* x, const Remembered& kept, const float* gradient, float* const* into,
              int threads) {
    size_t all = net.parameters();
    Buffer parts = zeros(net.parts() * all);
    std::vector<GradientStack<A>> states;
    for (int i = 0; i < threads; i++) states.emplace_back(net);
    divided(net.parts(), states, [&](GradientStack<A>& own, int64_t first, int64_t last) {
        for (int64_t part = first; part < last; part++) {
            for (int64_t i = part * net.part(); i < std::min((part + 1) * net.part(), net.n); i += A::IMAGES) {
                Remembered from = kept.of(net, i);
                own.backward(x + i * net.image(), int(std::min<int64_t>(A::IMAGES, net.n - i)),
                             reinterpret_cast<const typename A::Pixel*>(from.blurred), from.moments,
                             reinterpret_cast<const typename A::Mask*>(from.masks), gradient + i * net.last().channels());
            }
            own.flush(parts.get() + part * all);
        }
    });
    std::vector<const float*> of_parts;
    for (int64_t part = 0; part < net.parts(); part++) of_parts.push_back(parts.get() + part * all);
    for (size_t size : net.sizes()) {
        add_up(of_parts, size, *into++);
        for (const float*& part : of_parts) part += size;
    }
}

}  // namespace
